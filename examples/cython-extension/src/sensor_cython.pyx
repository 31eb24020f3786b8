# sensor_cython.pyx: a sensor in Cython that runs in any event loop.
#
# Its one rule: everything that may still call the sensor has a reference. A watcher
# drops its reference in `destroyed`, its last call; a sample when its posted call has
# run; the Python object in __dealloc__. The last one frees the memory.
#
# Functions that C calls are `noexcept nogil`: they touch no Python object, so they need
# no GIL, and return -errno.
import os

cimport cython
from libc.errno cimport EAGAIN, EINTR, ENOMEM, EPROTO, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr, memset

from fdmux_h cimport *

import fdmux

cdef extern from "<fcntl.h>" nogil:
    const int O_RDONLY
    const int O_NONBLOCK
    const int O_CLOEXEC
    int open(const char *path, int flags)

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int fd, void *buffer, size_t size)
    int close(int fd)

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_t:
        pass
    int pthread_create(
        pthread_t *thread, const void *options, void *(*fn)(void *) noexcept, void *)
    int pthread_join(pthread_t thread, void **ret_result)

cdef extern from "<stdatomic.h>" nogil:
    ctypedef int atomic_int
    ctypedef uint64_t atomic_uint_least64_t
    int atomic_fetch_add(atomic_int *, int)
    int atomic_fetch_sub(atomic_int *, int)
    int atomic_load(atomic_int *)
    uint64_t add "atomic_fetch_add"(atomic_uint_least64_t *, uint64_t)
    uint64_t value_of "atomic_load"(atomic_uint_least64_t *)

cdef int64_t TICK_NS = 2000000
cdef uint64_t SAMPLE_COUNT = 1000

cdef struct sensor:
    fdmux_loop *loop
    uint64_t io
    uint64_t timer
    int fd
    bint has_thread  # used only by functions of the loop
    pthread_t thread
    atomic_int references
    atomic_int has_ended
    atomic_uint_least64_t bytes, ticks, samples, total, dropped

cdef struct sample:
    sensor *owner
    uint64_t value

cdef atomic_int live_count


cdef void hold(sensor *self) noexcept nogil:
    atomic_fetch_add(&self.references, 1)


cdef void release(sensor *self) noexcept nogil:
    if atomic_fetch_sub(&self.references, 1) > 1:
        return
    atomic_fetch_sub(&live_count, 1)
    free(self)


# ---- the thread ----------------------------------------------------------------------

# Runs once for each sample, on the loop's thread. `loop` is NULL if the loop was closed
# before. In both cases this function frees the sample and its reference.
cdef int on_sample(fdmux_loop *loop, void *userdata) noexcept nogil:
    cdef sample *taken = <sample *>userdata
    cdef sensor *self = taken.owner
    if loop == NULL:
        add(&self.dropped, 1)
    else:
        add(&self.samples, 1)
        add(&self.total, taken.value)
    free(taken)
    release(self)
    return 0


cdef void post_sample(sensor *self, uint64_t value) noexcept nogil:
    cdef sample *taken = <sample *>malloc(sizeof(sample))
    if taken == NULL:
        add(&self.dropped, 1)
        return
    taken.owner = self
    taken.value = value
    hold(self)
    if fdmux_post(self.loop, on_sample, taken) < 0:
        on_sample(NULL, taken)  # refused, so free it here


cdef void *measure(void *userdata) noexcept nogil:
    cdef uint64_t value
    for value in range(SAMPLE_COUNT):
        post_sample(<sensor *>userdata, value)
    return NULL


# ---- functions of the loop -----------------------------------------------------------

# Whatever runs the loop returns a negative result; Python raises it as an OSError. The
# watcher stays and is called again.
cdef int on_readable(
    fdmux_loop *loop, uint64_t io, uint32_t events, void *userdata
) noexcept nogil:
    cdef sensor *self = <sensor *>userdata
    cdef char[4096] buffer
    cdef ssize_t size = read(self.fd, buffer, sizeof(buffer))
    if size < 0:
        return 0 if errno == EAGAIN or errno == EINTR else -errno
    if size == 0:
        stop(self)  # unplugged; a function may remove its own watcher
    add(&self.bytes, <uint64_t>size)
    return 0 if memchr(buffer, c'!', <size_t>size) == NULL else -EPROTO


# The first tick starts the thread, when start() can no longer fail.
cdef int on_tick(fdmux_loop *loop, uint64_t timer, void *userdata) noexcept nogil:
    cdef sensor *self = <sensor *>userdata
    cdef int result
    add(&self.ticks, 1)
    if self.has_thread:
        return 0
    result = -pthread_create(&self.thread, NULL, measure, self)
    self.has_thread = result == 0
    return result


# The only function that closes and joins. Called exactly once, for any kind of end.
cdef void on_io_destroyed(void *userdata) noexcept nogil:
    cdef sensor *self = <sensor *>userdata
    if self.has_thread:
        pthread_join(self.thread, NULL)
    close(self.fd)
    atomic_fetch_add(&self.has_ended, 1)
    release(self)


cdef void on_timer_destroyed(void *userdata) noexcept nogil:
    release(<sensor *>userdata)


# ---- start and stop ------------------------------------------------------------------

cdef int start_io(sensor *self, const char *path) noexcept nogil:
    cdef fdmux_io_options options
    cdef int result
    self.fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)
    if self.fd < 0:
        return -errno
    memset(&options, 0, sizeof(options))
    options.struct_size = sizeof(options)
    options.fd = self.fd
    options.events = FDMUX_READ
    options.fn = on_readable
    options.userdata = self
    options.destroyed = on_io_destroyed
    hold(self)  # for the io watcher
    result = fdmux_io_add(self.loop, &options, &self.io)
    if result < 0:
        on_io_destroyed(self)  # not registered, so fdmux does not call it
    return result


cdef int start_timer(sensor *self) noexcept nogil:
    cdef fdmux_timer_options options
    cdef int result
    memset(&options, 0, sizeof(options))
    options.struct_size = sizeof(options)
    options.fn = on_tick
    options.userdata = self
    options.destroyed = on_timer_destroyed
    result = fdmux_timer_add(self.loop, &options, &self.timer)
    if result < 0:
        return result
    hold(self)  # for the timer
    return fdmux_timer_arm(
        self.loop, self.timer, fdmux_loop_now(self.loop) + TICK_NS, TICK_NS)


cdef int start(fdmux_loop *loop, const char *path, sensor **ret_sensor) noexcept nogil:
    cdef sensor *self = <sensor *>calloc(1, sizeof(sensor))
    cdef int result
    if self == NULL:
        return -ENOMEM
    atomic_fetch_add(&live_count, 1)
    self.loop = loop
    hold(self)  # for the caller
    result = start_io(self, path)
    if result >= 0:
        result = start_timer(self)
    if result < 0:
        stop(self)
        release(self)
        return result
    ret_sensor[0] = self
    return 0


cdef void stop(sensor *self) noexcept nogil:
    # A stale token is harmless: removal returns an error.
    fdmux_timer_remove(self.loop, self.timer)
    fdmux_io_remove(self.loop, self.io)


# ---- functions for Python ------------------------------------------------------------

@cython.no_gc_clear  # __dealloc__ needs the owner, so the collector must leave it
cdef class Sensor:
    """A sensor in a loop; `attach` makes it."""

    cdef sensor *state
    cdef object owner  # of the loop: keeps its memory

    def __cinit__(self, str path, owner):
        cdef fdmux_loop *loop = fdmux_from_object(owner)
        cdef bytes name = os.fsencode(path)
        cdef int result = start(loop, name, &self.state)
        self.owner = owner
        if result < 0:
            raise OSError(-result, os.strerror(-result), path)

    def __dealloc__(self):
        if self.state != NULL:
            stop(self.state)
            release(self.state)

    def close(self):
        """End the sensor, not the loop. Idempotent."""
        with nogil:  # it joins a thread: release the GIL
            stop(self.state)

    def has_ended(self):
        """Whether the descriptor is closed and the thread joined."""
        return atomic_load(&self.state.has_ended) != 0

    def counts(self):
        """Return what has happened so far."""
        return {
            "bytes": value_of(&self.state.bytes),
            "ticks": value_of(&self.state.ticks),
            "samples": value_of(&self.state.samples),
            "total": value_of(&self.state.total),
            "dropped": value_of(&self.state.dropped),
        }


def attach(str path, loop=None):
    """Open a sensor in the loop of `loop`, or in the loop that runs here."""
    return Sensor(path, fdmux.current() if loop is None else loop)


def live():
    """Count the sensors that are in memory."""
    return atomic_load(&live_count)


fdmux_import()
