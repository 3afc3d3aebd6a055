# The libsndfile library: target SndFile::sndfile. Debian and Ubuntu: libsndfile1-dev.
find_path(SndFile_INCLUDE_DIR sndfile.h)
find_library(SndFile_LIBRARY sndfile)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(SndFile
  REASON_FAILURE_MESSAGE "install libsndfile1-dev (apt-get install libsndfile1-dev)"
  REQUIRED_VARS SndFile_LIBRARY SndFile_INCLUDE_DIR)
if(SndFile_FOUND AND NOT TARGET SndFile::sndfile)
  add_library(SndFile::sndfile INTERFACE IMPORTED)
  set_target_properties(SndFile::sndfile PROPERTIES
    INTERFACE_LINK_LIBRARIES ${SndFile_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${SndFile_INCLUDE_DIR})
endif()
mark_as_advanced(SndFile_INCLUDE_DIR SndFile_LIBRARY)
