# fdmux_h.pxd: the parts of fdmux_python.h that this example uses. The C compiler reads
# the real header, so sizes and constants cannot differ from it.
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from "fdmux_python.h" nogil:
    const uint32_t FDMUX_READ

    struct fdmux_loop:
        pass

    ctypedef int (*fdmux_io_fn)(fdmux_loop *, uint64_t, uint32_t, void *) noexcept
    ctypedef int (*fdmux_timer_fn)(fdmux_loop *, uint64_t, void *) noexcept
    ctypedef int (*fdmux_post_fn)(fdmux_loop *, void *) noexcept
    ctypedef void (*fdmux_destroyed_fn)(void *) noexcept

    struct fdmux_io_options:
        size_t struct_size
        int fd
        uint32_t events
        fdmux_io_fn fn
        void *userdata
        fdmux_destroyed_fn destroyed

    struct fdmux_timer_options:
        size_t struct_size
        fdmux_timer_fn fn
        void *userdata
        fdmux_destroyed_fn destroyed

    int64_t fdmux_loop_now(fdmux_loop *loop)
    int fdmux_io_add(fdmux_loop *loop, const fdmux_io_options *options, uint64_t *ret_io)
    int fdmux_io_remove(fdmux_loop *loop, uint64_t io)
    int fdmux_timer_add(
        fdmux_loop *loop, const fdmux_timer_options *options, uint64_t *ret_timer)
    int fdmux_timer_arm(
        fdmux_loop *loop, uint64_t timer, int64_t deadline_ns, int64_t period_ns)
    int fdmux_timer_remove(fdmux_loop *loop, uint64_t timer)
    int fdmux_post(fdmux_loop *loop, fdmux_post_fn fn, void *userdata)

# These two need the GIL, and come back with an exception set when they fail.
cdef extern from "fdmux_python.h":
    int fdmux_import() except -1
    fdmux_loop *fdmux_from_object(object owner) except NULL
