# The kissfft library in float: target KissFFT::kissfft. Debian and Ubuntu: libkissfft-dev.
find_path(KissFFT_INCLUDE_DIR kissfft/kiss_fftr.h)
find_library(KissFFT_LIBRARY kissfft-float)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(KissFFT
  REASON_FAILURE_MESSAGE "install libkissfft-dev (apt-get install libkissfft-dev)"
  REQUIRED_VARS KissFFT_LIBRARY KissFFT_INCLUDE_DIR)
if(KissFFT_FOUND AND NOT TARGET KissFFT::kissfft)
  add_library(KissFFT::kissfft INTERFACE IMPORTED)
  set_target_properties(KissFFT::kissfft PROPERTIES
    INTERFACE_LINK_LIBRARIES ${KissFFT_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${KissFFT_INCLUDE_DIR})
endif()
mark_as_advanced(KissFFT_INCLUDE_DIR KissFFT_LIBRARY)
