/* layout.c: writes, as Rust constants, the layout that fdmux.rs must match. Run when
 * the library is built, with the header of the installed fdmux. */
#include <fdmux_api.h>
#include <stdio.h>

struct constant {
    const char *name;
    size_t value;
};

#define NUMBER(name) {#name, name}
#define SIZE(name, type) {"SIZE_OF_" name, sizeof(struct type)}
#define OFFSET(type, member)                                                           \
    {"OFFSET_" #type "__" #member, offsetof(struct type, member)}

static const struct constant constants[] = {
    NUMBER(FDMUX_ABI_MAJOR),
    NUMBER(FDMUX_ABI_MINOR),
    NUMBER(FDMUX_READ),
    SIZE("API", fdmux_api),
    SIZE("LOOP_HANDLE", fdmux_loop_handle),
    SIZE("IO_OPTIONS", fdmux_io_options),
    SIZE("TIMER_OPTIONS", fdmux_timer_options),
    OFFSET(fdmux_api, loop_now),
    OFFSET(fdmux_api, io_add),
    OFFSET(fdmux_api, io_remove),
    OFFSET(fdmux_api, timer_add),
    OFFSET(fdmux_api, timer_arm),
    OFFSET(fdmux_api, timer_remove),
    OFFSET(fdmux_api, post),
    OFFSET(fdmux_loop_handle, loop),
    OFFSET(fdmux_io_options, fd),
    OFFSET(fdmux_io_options, events),
    OFFSET(fdmux_io_options, fn),
    OFFSET(fdmux_io_options, userdata),
    OFFSET(fdmux_io_options, destroyed),
    OFFSET(fdmux_timer_options, fn),
    OFFSET(fdmux_timer_options, userdata),
    OFFSET(fdmux_timer_options, destroyed),
};

int main(int argc, char **argv)
{
    FILE *file = argc == 2 ? fopen(argv[1], "w") : NULL;

    if (file == NULL)
        return 1;
    for (size_t i = 0; i < sizeof constants / sizeof constants[0]; i++) {
        const struct constant *constant = &constants[i];
        (void)fprintf(file, "pub const %s: usize = %zu;\n", constant->name,
                      constant->value); /* fclose reports a failed write, too */
    }
    return fclose(file) == 0 ? 0 : 1;
}
