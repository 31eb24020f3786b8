# kqueue(2) on Linux, for tests of the backend kqueue (tests/README.md):
# FDMUX_KQUEUE=model    tests/core/kqueue_model, made from the manual pages
# FDMUX_KQUEUE=oldest   the same, of a system without what was added to kqueue(2) later
# FDMUX_KQUEUE=PREFIX   libkqueue, installed below PREFIX
set(FDMUX_KQUEUE "" CACHE STRING "kqueue(2) for tests: model, oldest, or a prefix")
if(FDMUX_KQUEUE STREQUAL "")
  return()
endif()
if(NOT FDMUX_TESTING)
  message(FATAL_ERROR "FDMUX_KQUEUE is for tests: it needs -DFDMUX_TESTING=ON")
endif()

target_sources(fdmux_core PRIVATE csrc/platform/sys_kqueue.c)
target_compile_definitions(fdmux_options INTERFACE FDMUX_KQUEUE=1)
if(FDMUX_KQUEUE MATCHES "^(model|oldest)$")
  set(_model ${PROJECT_SOURCE_DIR}/tests/core/kqueue_model)
  target_sources(fdmux_core PRIVATE ${_model}/kqueue_model.c
    ${_model}/model_changes.c ${_model}/model_scan.c)
  target_include_directories(fdmux_options INTERFACE ${_model})
  target_compile_definitions(fdmux_options INTERFACE FDMUX_KQUEUE_MODEL=1
    $<$<STREQUAL:${FDMUX_KQUEUE},oldest>:KQUEUE_MODEL_OLDEST=1>)
else()
  find_path(_kqueue_include sys/event.h HINTS ${FDMUX_KQUEUE}
    PATH_SUFFIXES include/kqueue usr/include/kqueue REQUIRED NO_DEFAULT_PATH)
  find_library(_kqueue_library kqueue HINTS ${FDMUX_KQUEUE}
    PATH_SUFFIXES lib usr/lib lib/${CMAKE_LIBRARY_ARCHITECTURE}
    usr/lib/${CMAKE_LIBRARY_ARCHITECTURE} REQUIRED NO_DEFAULT_PATH)
  target_include_directories(fdmux_options SYSTEM INTERFACE ${_kqueue_include})
  target_compile_definitions(fdmux_options INTERFACE FDMUX_KQUEUE_EMULATED=1)
  target_link_libraries(fdmux_core PUBLIC ${_kqueue_library})
endif()
