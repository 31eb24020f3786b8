# The target fdmux_hardening: compiler and linker flags that stop common exploits, for the
# core and the extensions of release builds.
#
# The flags are those of the OpenSSF compiler hardening guide that fit a library. Flags
# that some supported compilers lack are tested first. Two are left out on purpose:
# `-z nodlopen`, since dlopen loads extension modules, and LTO, which would tie the
# installed static library to one compiler. CMake sets the optimization level.
include(CheckCCompilerFlag)
include(CheckLinkerFlag)
add_library(fdmux_hardening INTERFACE)

# Sanitizers check more than FORTIFY, and conflict with it. They must also see
# uninitialized memory, as must valgrind in a test build.
option(FDMUX_HARDEN "Harden optimized builds" ON)
if(NOT FDMUX_HARDEN OR FDMUX_SANITIZE OR FDMUX_TESTING)
  return()
endif()

if(MSVC) # /GS, ASLR and DEP are its defaults
  target_compile_options(fdmux_hardening INTERFACE /guard:cf)
  target_link_options(fdmux_hardening INTERFACE /guard:cf)
  return()
endif()

set(_flags -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 -fstack-protector-strong
  -fno-delete-null-pointer-checks -fno-strict-overflow -fno-strict-aliasing
  -fexceptions) # -fexceptions: pthread_exit and pthread_cancel unwind through our frames
set(_tried
  -fstack-clash-protection       # by architecture
  -ftrivial-auto-var-init=zero   # gcc 12, clang 8
  -fstrict-flex-arrays=3         # gcc 13, clang 16
  -fzero-init-padding-bits=all)  # gcc 15
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|i.86")
  list(APPEND _tried -fcf-protection=full)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  list(APPEND _tried -mbranch-protection=standard)
endif()
set(CMAKE_REQUIRED_FLAGS -Werror) # clang warns of a flag that the target ignores
foreach(_flag IN LISTS _tried)
  string(MAKE_C_IDENTIFIER "fdmux_has${_flag}" _has)
  check_c_compiler_flag(${_flag} ${_has})
  if(${_has})
    list(APPEND _flags ${_flag})
  endif()
endforeach()
unset(CMAKE_REQUIRED_FLAGS)

# FORTIFY needs optimization, and a debug build should stay easy to debug.
set(_is_optimized $<CONFIG:Release,RelWithDebInfo,MinSizeRel>)
foreach(_flag IN LISTS _flags)
  target_compile_options(fdmux_hardening INTERFACE $<${_is_optimized}:${_flag}>)
endforeach()

if(UNIX AND NOT APPLE)
  foreach(_keyword relro now noexecstack)
    target_link_options(fdmux_hardening INTERFACE
      $<${_is_optimized}:LINKER:-z,${_keyword}>)
  endforeach()
  target_link_options(fdmux_hardening INTERFACE $<${_is_optimized}:LINKER:--as-needed>)
  # zig's linker never copies them, and does not know the flag.
  check_linker_flag(C LINKER:--no-copy-dt-needed-entries fdmux_has_no_copy)
  if(fdmux_has_no_copy)
    target_link_options(fdmux_hardening INTERFACE
      $<${_is_optimized}:LINKER:--no-copy-dt-needed-entries>)
  endif()
endif()
