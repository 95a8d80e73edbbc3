# What libqd_cuda.so is made of, also for the tests that make it of doubles: the C side, and the .cu files with kernels.
set(QD_CUDA_SOURCES dev_cuda.c device.c lane.c ops_cuda.c pool.c products.c solver.c stage.c weights.c)
list(TRANSFORM QD_CUDA_SOURCES PREPEND ${PROJECT_SOURCE_DIR}/gpu/cuda/)
set(QD_CUDA_KERNELS amax nvfp4 elementwise norm softmax delta blocks gptq)
