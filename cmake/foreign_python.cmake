# Extensions for a CPython for Windows that this machine cannot run: FDMUX_PYTHON_ROOT is
# its folder, with `include` and `libs`. CMake's own search wants to run it. The Python
# that runs the scripts of the build is another one: FDMUX_BUILD_PYTHON.
set(Python_EXECUTABLE ${FDMUX_BUILD_PYTHON})
add_library(fdmux_foreign_python INTERFACE)
target_include_directories(fdmux_foreign_python SYSTEM INTERFACE
  ${FDMUX_PYTHON_ROOT}/include)
target_link_libraries(fdmux_foreign_python INTERFACE ${FDMUX_PYTHON_ROOT}/libs/python3.lib)
set(SKBUILD_SABI_VERSION 3.11)
# No library of the compiler is on the user's machine.
target_link_options(fdmux_foreign_python INTERFACE -static-libgcc)

# As FindPython's, as far as csrc/python calls it: always with the limited API.
function(python_add_library name kind with_soabi use_sabi version)
  add_library(${name} MODULE ${ARGN})
  set_target_properties(${name} PROPERTIES PREFIX "" SUFFIX ".pyd")
  target_compile_definitions(${name} PRIVATE Py_LIMITED_API=0x030b0000)
  target_link_libraries(${name} PRIVATE fdmux_foreign_python)
endfunction()
