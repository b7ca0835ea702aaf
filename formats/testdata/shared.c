/* Source of `shared*.so`: one symbol of each kind that the parser tells apart. */
extern int dep_function(void);
extern int dep_data;
extern int dep_weak(void) __attribute__((weak));
extern int unversioned(void);

int old_function(void) { return 1; }
int new_function(void) { return 2; }
__asm__(".symver old_function, function@V1");
__asm__(".symver new_function, function@@V2");

int data = 5;
extern int data_alias __attribute__((weak, alias("data")));
const int constant[3] = {1, 2, 3};
int *const relocated = &data;
char aligned[64] __attribute__((aligned(32)));
_Thread_local int tls = 3;

static int chosen(void) { return 3; }
static int (*choose(void))(void) { return chosen; }
int indirect(void) __attribute__((ifunc("choose")));

__attribute__((visibility("protected"))) int protected_function(void) { return 4; }

int caller(void) { return dep_function() + dep_data + (dep_weak ? dep_weak() : 0) + unversioned(); }

__asm__(".data\n.globl unique\n.type unique, @gnu_unique_object\n.size unique, 8\n"
        ".balign 8\nunique: .quad 7\n.text");
