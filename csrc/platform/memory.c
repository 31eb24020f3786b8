/* memory.c: the allocations of sys.h, the same on every system. The only file that
 * calls malloc by name. */
#include "sys.h"

#include <stdlib.h>

#include "testing.h"

void *fdmux__sys_calloc(size_t count, size_t size)
{
    void *memory = fdmux__fault(FDMUX_CALL_MEMORY) ? NULL : calloc(count, size);

    fdmux__count_memory(memory != NULL ? 1 : 0);
    return memory;
}

void *fdmux__sys_realloc(void *memory, size_t size)
{
    void *moved = fdmux__fault(FDMUX_CALL_MEMORY) ? NULL : realloc(memory, size);

    fdmux__count_memory(memory == NULL && moved != NULL ? 1 : 0);
    return moved;
}

void fdmux__sys_free(void *memory)
{
    fdmux__count_memory(memory != NULL ? -1 : 0);
    free(memory);
}
