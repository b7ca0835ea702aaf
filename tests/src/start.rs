//! What stands in for a C library's start.

/// `_start`: applies the RELATIVE relocations of a position-independent program, and exits with what `app_main` returns.
pub const START: &str = r#"
int app_main(void);
extern long _DYNAMIC[] __attribute__((weak, visibility("hidden")));
extern char __ehdr_start[] __attribute__((visibility("hidden")));
/* RELATIVE relocations, if the program is position-independent. */
static void relocate(void)
{
    long table = 0, size = 0;
    for (long *tag = _DYNAMIC; tag && *tag; tag += 2) {
        table = *tag == 7 ? tag[1] : table;
        size = *tag == 8 ? tag[1] : size;
    }
    for (long *r = (long *)(__ehdr_start + table); size > 0; r += 3, size -= 24)
        if (r[1] == 8)
            *(long *)(__ehdr_start + r[0]) = (long)__ehdr_start + r[2];
}
__attribute__((noreturn, force_align_arg_pointer)) void _start(void)
{
    relocate();
    int status = app_main();
    for (;;)
        __asm__ volatile("syscall" : : "a"(60), "D"(status));
}
"#;
