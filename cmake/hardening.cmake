# What the compiler and the linker do against mistakes that get through: the target
# fdmux_hardening, for the core and the extension of release builds.
#
# The flags are those of the OpenSSF compiler hardening guide that fit a library. Those
# that not every supported compiler knows are tried first. Left out on purpose:
# `-z nodlopen`, since an extension module is loaded by dlopen, and LTO, which would tie
# the installed static library to one compiler. The optimization level is CMake's.
include(CheckCCompilerFlag)
add_library(fdmux_hardening INTERFACE)

# Sanitizers check more than FORTIFY and clash with it; and they, as valgrind over a
# test build, are to see what is not initialized.
option(FDMUX_HARDEN "Harden optimized builds" ON)
if(NOT FDMUX_HARDEN OR FDMUX_SANITIZE OR FDMUX_TESTING)
  return()
endif()

set(_flags -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 -fstack-protector-strong
  -fno-delete-null-pointer-checks -fno-strict-overflow -fno-strict-aliasing
  -fexceptions) # the last lets pthread_exit and pthread_cancel unwind through us
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
foreach(_flag IN LISTS _tried)
  string(MAKE_C_IDENTIFIER "fdmux_has${_flag}" _has)
  check_c_compiler_flag(${_flag} ${_has})
  if(${_has})
    list(APPEND _flags ${_flag})
  endif()
endforeach()

# FORTIFY needs an optimizer, and a debug build is for looking at.
set(_is_optimized $<CONFIG:Release,RelWithDebInfo,MinSizeRel>)
foreach(_flag IN LISTS _flags)
  target_compile_options(fdmux_hardening INTERFACE $<${_is_optimized}:${_flag}>)
endforeach()

if(UNIX AND NOT APPLE)
  foreach(_keyword relro now noexecstack)
    target_link_options(fdmux_hardening INTERFACE
      $<${_is_optimized}:LINKER:-z,${_keyword}>)
  endforeach()
  target_link_options(fdmux_hardening INTERFACE $<${_is_optimized}:LINKER:--as-needed>
    $<${_is_optimized}:LINKER:--no-copy-dt-needed-entries>)
endif()
