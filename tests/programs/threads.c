/* POSIX threads: creation, mutex, condition, thread-local data of each storage model, once, cancellation clean-up. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ready = PTHREAD_COND_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static __thread int local_initialised = 5;
__thread int global_zero;
static int arrived, sum, initialised;
static pthread_key_t key;

static void init(void)
{
    initialised++;
    pthread_key_create(&key, free);
}

static void *work(void *argument)
{
    pthread_once(&once, init);
    pthread_setspecific(key, malloc(16));
    for (int i = 0; i < 1000; i++) {
        local_initialised += 1;
        global_zero += 2;
    }
    pthread_mutex_lock(&mutex);
    sum += local_initialised + global_zero + *(int *)argument;
    arrived++;
    pthread_cond_signal(&ready);
    pthread_mutex_unlock(&mutex);
    return argument;
}

int main(void)
{
    pthread_t threads[4];
    int numbers[4] = {1, 2, 3, 4};
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, work, &numbers[i]);
    pthread_mutex_lock(&mutex);
    while (arrived < 4)
        pthread_cond_wait(&ready, &mutex);
    pthread_mutex_unlock(&mutex);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    printf("%d %d %d %d\n", sum, initialised, local_initialised, global_zero);
    return 3;
}
