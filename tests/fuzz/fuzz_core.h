/* fuzz_core.h: the entry point that fuzzers look for. */
#ifndef FDMUX_FUZZ_CORE_H
#define FDMUX_FUZZ_CORE_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
