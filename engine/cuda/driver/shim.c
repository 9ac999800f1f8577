//go:build cuda && linux

#include <dlfcn.h>
#include <stdio.h>
#include "shim.h"

enum { CUDA_ERROR_NO_DEVICE = 100, CUDA_ERROR_NOT_FOUND = 500 };

static int no_driver(void) { return CUDA_ERROR_NO_DEVICE; }
static int no_symbol(void) { return CUDA_ERROR_NOT_FOUND; }

static const struct {
	const char *name;
	int needed;
} calls[] = {
#define SYMBOL(name, needed) {name, needed},
#include "symbols.h"
#undef SYMBOL
};

enum { CALLS = sizeof calls / sizeof *calls };

__attribute__((visibility("hidden"))) void *lorad_cuda_table[CALLS] = {
#define SYMBOL(name, needed) (void *)no_driver,
#include "symbols.h"
#undef SYMBOL
};

/* gorgonia.org/cu calls this when the program starts, and ends the program on any error: there is none, whatever the machine has. The driver's own
   cuInit is called by lorad_cuda_load. */
__attribute__((visibility("hidden"))) int cuInit(unsigned int flags) {
	(void)flags;
	return 0;
}

static char failure[512];

const char *lorad_cuda_load(const char *library, int *code) {
	*code = 0;
	void *driver = dlopen(library, RTLD_NOW | RTLD_LOCAL);
	if (!driver) {
		snprintf(failure, sizeof failure, "%s", dlerror());
		return failure;
	}
	int (*init)(unsigned int) = (int (*)(unsigned int))dlsym(driver, "cuInit");
	*code = init ? init(0) : CUDA_ERROR_NOT_FOUND;
	if (*code) {
		snprintf(failure, sizeof failure, "cuInit: error %d", *code);
		int (*text)(int, const char **) = (int (*)(int, const char **))dlsym(driver, "cuGetErrorString");
		const char *says = NULL;
		if (text && text(*code, &says) == 0 && says) snprintf(failure, sizeof failure, "cuInit: error %d, %s", *code, says);
		dlclose(driver);
		return failure;
	}
	for (int i = 0; i < CALLS; i++) {
		void *at = dlsym(driver, calls[i].name);
		lorad_cuda_table[i] = at ? at : (void *)no_symbol;
	}
	return NULL;
}

int lorad_cuda_missing(const char **first) {
	int n = 0;
	for (int i = CALLS - 1; i >= 0; i--) {
		if (!calls[i].needed || lorad_cuda_table[i] != (void *)no_symbol) continue;
		*first = calls[i].name;
		n++;
	}
	return n;
}
