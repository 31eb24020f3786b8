/* gil.h: what threads share in the modules, where Python may have no GIL.
 *
 * Objects of a loop belong to the thread that runs it. Beyond them there are two lists
 * of objects of all loops, under a lock of their own, and caches, which are not used
 * without the GIL. FDMUX_FREE_THREADING (CMakeLists.txt) compiles this; what has run so
 * is in docs/platforms.md. */
#ifndef FDMUX_PYTHON_GIL_H
#define FDMUX_PYTHON_GIL_H

#include <Python.h>

#if defined(FDMUX_FREE_THREADING)
#define DELIVERY_HAS_CACHES 0

extern PyMutex delivery_lists; /* nothing that may run Python is called with it */

static inline void delivery_lists_lock(void)
{
    PyMutex_Lock(&delivery_lists);
}

static inline void delivery_lists_unlock(void)
{
    PyMutex_Unlock(&delivery_lists);
}
#else
#define DELIVERY_HAS_CACHES 1

static inline void delivery_lists_lock(void)
{
}

static inline void delivery_lists_unlock(void)
{
}
#endif

#endif
