/* coverage_exit.c: write the counters of gcov before _exit(2) too.
 *
 * Linked into the C tests by tools/coverage.py alone, with --wrap=_exit: children of
 * fork(2) end that way, and what they have reached would be lost. */
#include <gcov.h>

_Noreturn void __real__exit(int status);
_Noreturn void __wrap__exit(int status);

_Noreturn void __wrap__exit(int status)
{
    __gcov_dump();
    __real__exit(status);
}
