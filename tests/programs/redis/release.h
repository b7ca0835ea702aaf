/* What redis has its build make of git and the clock. */
#define REDIS_GIT_SHA1 "00000000"
#define REDIS_GIT_DIRTY "0"
#define REDIS_BUILD_ID "relink"
#define REDIS_BUILD_ID_RAW REDIS_BUILD_ID
