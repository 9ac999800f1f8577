//go:build cuda && linux

/* The CUDA driver, loaded when it is asked for. See shim.c. Handles are opaque here; the calls that gorgonia.org/cu makes are declared in its cuda.h. */
#pragma once
#include <stddef.h>

/* Loads a driver library and starts it. NULL: it is there. Otherwise what dlopen or cuInit says; *code is then cuInit's, or 0. */
const char *lorad_cuda_load(const char *library, int *code);

/* How many of the calls that we need the loaded driver does not have, and the first of them. */
int lorad_cuda_missing(const char **first);

int cuMemHostAlloc(void **p, size_t bytes, unsigned int flags);
int cuMemHostRegister(void *p, size_t bytes, unsigned int flags);
int cuMemHostUnregister(void *p);
int cuFuncSetAttribute(void *function, int attribute, int value);
int cuStreamBeginCapture(void *stream, int mode);
int cuStreamEndCapture(void *stream, void **graph);
int cuGraphInstantiateWithFlags(void **exec, void *graph, unsigned long long flags);
int cuGraphLaunch(void *exec, void *stream);
int cuGraphDestroy(void *graph);
int cuGraphExecDestroy(void *exec);
