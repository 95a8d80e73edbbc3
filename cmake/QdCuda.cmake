# QD_NVCC                          nvcc, or empty where gpu/cuda cannot be built; QD_NVCC_MISSING then says why.
# QD_CUDA_ARCHS QD_NVCC_FLAGS      what gpu/cuda is built for, and how: the tests translate PTX made with the same flags.
# qd_nvcc(OUTPUT SOURCE ARGS...)   a custom command; CUDA is no language of the project, so that machines without it build.
set(QD_CUDA_ARCHS 80 90 100a 120a)
set(QD_NVCC_FLAGS -std=c++17 -fmad=false -ftz=false -prec-div=true -Werror all-warnings -I${PROJECT_SOURCE_DIR})
if(QD_CUDA)
  find_program(QD_NVCC_PROGRAM nvcc HINTS /usr/local/cuda/bin)
  find_program(QD_NVCC_HOST_PROGRAM g++)
endif()
set(QD_NVCC "")
set(QD_NVCC_MISSING "")
if(NOT QD_CUDA)
  set(QD_NVCC_MISSING "QD_CUDA is off")
elseif(NOT QD_NVCC_PROGRAM)
  set(QD_NVCC_MISSING "no nvcc found")
elseif(NOT QD_NVCC_HOST_PROGRAM)
  set(QD_NVCC_MISSING "nvcc needs g++, which was not found")
else()
  set(QD_NVCC ${QD_NVCC_PROGRAM})
endif()

function(qd_nvcc output source)
  cmake_path(ABSOLUTE_PATH source BASE_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR})
  cmake_path(ABSOLUTE_PATH output BASE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
  cmake_path(RELATIVE_PATH output BASE_DIRECTORY ${PROJECT_BINARY_DIR} OUTPUT_VARIABLE shown)
  add_custom_command(OUTPUT ${output}
    COMMAND ${QD_NVCC} -ccbin ${QD_NVCC_HOST_PROGRAM} ${QD_NVCC_FLAGS} ${ARGN} -MD -MF ${output}.d -MT ${output} -o ${output} ${source}
    DEPENDS ${source} DEPFILE ${output}.d COMMENT "nvcc ${shown}" VERBATIM)
endfunction()
