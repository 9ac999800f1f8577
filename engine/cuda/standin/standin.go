// Package standin is a GPU for tests: libraries with the names and entry points of NVIDIA's driver and cuBLAS, in which the kernels of
// engine/cuda/kernels run on the processor. With it whole training steps go through the program's own code for GPUs on a machine without one.
//
// cpp/emulate.h and emulate.cc run a .cu file as C++: one fiber per CUDA thread, with barriers, warp exchanges and shared memory that holds NaN
// until it is written. driver.cc, memory.cc and module.cc are the driver's API over it: work waits in streams until somebody waits for it, is recorded into
// graphs and launched again. blas.cc is cuBLAS and cuBLASLt. They are built with g++ into a cache folder, keyed by their contents.
//
// What it shows: results, missing and divergent barriers, lanes that leave before an exchange, what was never written, writes outside an
// allocation (and with AddressSanitizer reads too), host memory used while a copy is under way, what may not happen while a graph is recorded. What it does
// not: races within one instruction's time, the PTX itself, speed.
//
// Open is a device.Device on these libraries without cgo, for the tests of kernels and of the trainer. The program's own way to a GPU,
// engine/cuda/driver, opens the same libraries.
package standin

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"lorad/engine/cuda/kernels"
)

//go:embed cpp
var sources embed.FS

// ErrNoCompiler is in the error of Build on a machine without g++.
var ErrNoCompiler = errors.New("no g++")

// flags keep the arithmetic to one rounding per operation. The libraries show only what they say they do.
var flags = []string{"-std=c++17", "-O2", "-ffp-contract=off", "-fno-strict-aliasing", "-fPIC", "-fvisibility=hidden", "-fno-extern-tls-init", "-Wall",
	"-Wno-unknown-pragmas", "-Wno-unused-function", "-Wno-expansion-to-defined"}

// Build compiles the libraries, unless it has done so before, and returns the folder with libcuda.so.1, libcublas.so.12 and
// libcublasLt.so.12 (names of one file). With sanitize they need AddressSanitizer's library loaded before everything else.
func Build(sanitize bool) (dir string, err error) {
	return build(sanitize, nil)
}

// build is Build, or a build with a test's own kernels instead: a file's name without ".cu" and its text.
func build(sanitize bool, own map[string]string) (dir string, err error) {
	if _, err := exec.LookPath("g++"); err != nil {
		return "", ErrNoCompiler
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	b := builder{cache: filepath.Join(cache, "lorad", "standin"), flags: flags}
	if sanitize {
		b.flags = append(slices.Clone(flags), "-fsanitize=address", "-g")
	}
	if err := os.MkdirAll(b.cache, 0o700); err != nil {
		return "", err
	}
	units, err := b.units(own)
	if err != nil {
		return "", err
	}
	return b.link(units)
}

type builder struct {
	cache   string
	flags   []string
	headers string // emulate.h and the others, which every unit depends on
}

// A unit is one C++ file, whole.
type unit struct{ name, text string }

// units is the runtime's files and one for each file of kernels.
func (b *builder) units(own map[string]string) (units []unit, err error) {
	headers := map[string]string{}
	err = fs.WalkDir(sources, "cpp", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := sources.ReadFile(path)
		if name := filepath.Base(path); filepath.Ext(name) == ".h" {
			headers[name] = string(text)
		} else {
			units = append(units, unit{name, string(text)})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := b.writeHeaders(headers); err != nil {
		return nil, err
	}
	prologue, families, err := kernelSources()
	if err != nil {
		return nil, err
	}
	if own != nil {
		families = nil
	}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		families = append(families, unit{name, own[name]})
	}
	for _, k := range families {
		units = append(units, unit{k.name + ".cu.cc", wrap(prologue, k)})
	}
	return units, nil
}

// writeHeaders puts them into a folder named by their contents.
func (b *builder) writeHeaders(headers map[string]string) error {
	h := sha256.New()
	for _, name := range []string{"driver.h", "emulate.h", "runtime.h"} {
		fmt.Fprintf(h, "%s\n%s\n", name, headers[name])
	}
	b.headers = filepath.Join(b.cache, "headers-"+hex.EncodeToString(h.Sum(nil)[:8]))
	if err := os.MkdirAll(b.headers, 0o700); err != nil {
		return err
	}
	for name, text := range headers {
		if err := writeFile(filepath.Join(b.headers, name), text); err != nil {
			return err
		}
	}
	return nil
}

// kernelSources is the kernels' headers in one text, and their files.
func kernelSources() (prologue string, families []unit, err error) {
	names, err := fs.Glob(kernels.Sources, "*.cu*")
	if err != nil {
		return "", nil, err
	}
	for _, name := range names {
		text, err := kernels.Sources.ReadFile(name)
		if err != nil {
			return "", nil, err
		}
		if filepath.Ext(name) == ".cuh" {
			prologue += fmt.Sprintf("#line 1 %q\n%s\n", name, text)
		} else {
			families = append(families, unit{strings.TrimSuffix(name, ".cu"), string(text)})
		}
	}
	return prologue, families, nil
}

// wrap makes a C++ file of kernels: in a namespace without a name, as each .cu file is a program of its own.
func wrap(prologue string, k unit) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#include \"emulate.h\"\nnamespace {\n%s\n#line 1 %q\n%s\n", prologue, k.name+".cu", k.text)
	for _, line := range strings.Split(k.text, "\n") {
		if name, ok := entry(line); ok {
			fmt.Fprintf(&b, "KERNEL(%s)\n", name)
		}
	}
	return b.String() + "}\n"
}

// entry is the name of the kernel that a line begins.
func entry(line string) (name string, ok bool) {
	_, after, ok := strings.Cut(line, `extern "C" __global__ `)
	if !ok {
		return "", false
	}
	before, _, ok := strings.Cut(after, "(")
	if strings.HasPrefix(before, "__launch_bounds__") || strings.HasSuffix(before, "__launch_bounds__") {
		_, after, _ = strings.Cut(after, ") ")
		before, _, ok = strings.Cut(after, "(")
	}
	words := strings.Fields(before)
	if !ok || len(words) == 0 {
		return "", false
	}
	return words[len(words)-1], true
}

// link compiles what changed and makes one library of all, under all its names.
func (b *builder) link(units []unit) (dir string, err error) {
	objects := make([]string, len(units))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, u := range units {
		g.Go(func() (err error) {
			objects[i], err = b.compile(u)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return "", err
	}
	dir = filepath.Join(b.cache, "lib-"+b.key(strings.Join(objects, "\n")))
	if _, err := os.Stat(filepath.Join(dir, "libcublas.so.12")); err == nil {
		return dir, nil
	}
	work, err := os.MkdirTemp(b.cache, "link-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	lib := filepath.Join(work, "libcuda.so.1")
	args := append(slices.Clone(b.flags), "-shared", "-Wl,-soname,libcuda.so.1", "-o", lib)
	if err := gxx(append(args, objects...)); err != nil {
		return "", err
	}
	return dir, publish(work, dir)
}

// publish gives a finished folder its name; another process may have been faster.
func publish(work, dir string) error {
	for _, name := range []string{"libcublasLt.so.12", "libcublas.so.12"} {
		if err := os.Symlink("libcuda.so.1", filepath.Join(work, name)); err != nil {
			return err
		}
	}
	if err := os.Rename(work, dir); err != nil {
		_, err = os.Stat(filepath.Join(dir, "libcublas.so.12"))
		return err
	}
	return nil
}

// compile makes an object file, unless it is there.
func (b *builder) compile(u unit) (object string, err error) {
	object = filepath.Join(b.cache, b.key(u.text)+".o")
	if _, err := os.Stat(object); err == nil {
		return object, nil
	}
	work, err := os.MkdirTemp(b.cache, "compile-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	source, out := filepath.Join(work, u.name), filepath.Join(work, "out.o")
	if err := writeFile(source, u.text); err != nil {
		return "", err
	}
	if err := gxx(append(slices.Clone(b.flags), "-I", b.headers, "-c", source, "-o", out)); err != nil {
		return "", err
	}
	return object, os.Rename(out, object)
}

// key names what is made of a text.
func (b *builder) key(text string) string {
	sum := sha256.Sum256([]byte(strings.Join(b.flags, " ") + b.headers + text))
	return hex.EncodeToString(sum[:8])
}

func gxx(args []string) error {
	out, err := exec.Command("g++", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("build the stand-in GPU: %w\n%s", err, out)
	}
	return nil
}

// writeFile writes whole files only: another process may be reading.
func writeFile(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "tmp-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.WriteString(text); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
