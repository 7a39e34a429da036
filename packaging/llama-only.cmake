# llama-cpp-python compiles llama.cpp's command-line library as well, which the Python package never loads.
# This file is included after each project() call; a normal variable hides the cached ON, so that only
# libllama and libggml are built: about a third of the time.
set(LLAMA_BUILD_COMMON OFF)
