/* A C library program: formatted output, memory, sorting, the environment, exit handlers. */
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int order(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static void last(void)
{
    puts("exit handler");
}

__attribute__((constructor)) static void first(void)
{
    puts("constructor");
}

int main(int argc, char **argv)
{
    int numbers[] = {5, 3, 9, 1};
    char *copy = malloc(64);
    volatile double two = 2;
    atexit(last);
    setlocale(LC_ALL, "C");
    qsort(numbers, 4, sizeof *numbers, order);
    snprintf(copy, 64, "%d %d %d %d", numbers[0], numbers[1], numbers[2], numbers[3]);
    printf("%s, %.6f, %zu, %d %s\n", copy, sqrt(two), strlen(copy), argc, argc > 1 ? argv[1] : "-");
    free(copy);
    return argc == 2 ? 7 : 1;
}
