# The libsamplerate library: target SampleRate::samplerate. Debian and Ubuntu: libsamplerate0-dev.
find_path(SampleRate_INCLUDE_DIR samplerate.h)
find_library(SampleRate_LIBRARY samplerate)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(SampleRate
  REASON_FAILURE_MESSAGE "install libsamplerate0-dev (apt-get install libsamplerate0-dev)"
  REQUIRED_VARS SampleRate_LIBRARY SampleRate_INCLUDE_DIR)
if(SampleRate_FOUND AND NOT TARGET SampleRate::samplerate)
  add_library(SampleRate::samplerate INTERFACE IMPORTED)
  set_target_properties(SampleRate::samplerate PROPERTIES
    INTERFACE_LINK_LIBRARIES ${SampleRate_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES ${SampleRate_INCLUDE_DIR})
endif()
mark_as_advanced(SampleRate_INCLUDE_DIR SampleRate_LIBRARY)
