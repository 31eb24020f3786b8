"""Describe sensor.h to cffi: API mode, so the C compiler checks each declaration."""

from cffi import FFI

import fdmux

ffi = FFI()
ffi.cdef("""
struct fdmux_loop_handle { ...; };
struct sensor;
struct sensor_counts { uint64_t bytes, ticks, samples, total, dropped; };

int sensor_start(const struct fdmux_loop_handle *ref, const char *path,
                 struct sensor **ret_sensor);
void sensor_stop(struct sensor *sensor);
void sensor_release(struct sensor *sensor);
int sensor_has_ended(struct sensor *sensor);
struct sensor_counts sensor_count(struct sensor *sensor);
int sensor_live(void);
""")
ffi.set_source(
    "sensor_cffi._native",
    '#include "sensor.h"',
    sources=["src/sensor.c"],
    include_dirs=["src", fdmux.get_include()],
    libraries=["pthread"],
)
