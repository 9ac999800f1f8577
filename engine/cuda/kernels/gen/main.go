// Command gen compiles the kernels with NVRTC: to PTX beside their sources, or, with -cubin, for one architecture, to see what ptxas says of registers,
// spills and errors. It needs libnvrtc.so.11.2 (11.8), which scripts/ptx.sh fetches.
package main

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

func main() {
	lib := flag.String("nvrtc", "libnvrtc.so.11.2", "the library")
	dir := flag.String("dir", "engine/cuda/kernels", "folder of the sources")
	check := flag.Bool("check", false, "compare with the committed PTX instead of writing it")
	cubin := flag.String("cubin", "", "compile for an architecture (sm_80, sm_90) and print what ptxas says")
	flag.Parse()
	if err := run(*lib, *dir, *check, *cubin); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(lib, dir string, check bool, cubin string) error {
	compiler, err := openNVRTC(lib)
	if err != nil {
		return err
	}
	sources, err := filepath.Glob(filepath.Join(dir, "*.cu"))
	if err != nil || len(sources) == 0 {
		return fmt.Errorf("no .cu files in %s", dir)
	}
	slices.Sort(sources)
	for _, source := range sources {
		text, err := whole(dir, source)
		if err != nil {
			return err
		}
		if cubin != "" {
			err = report(compiler, text, cubin)
		} else {
			err = write(compiler, source, text, check)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", source, err)
		}
	}
	return nil
}

// whole is a source after all headers; errors name the file and line of each.
func whole(dir, source string) (string, error) {
	headers, err := filepath.Glob(filepath.Join(dir, "*.cuh"))
	if err != nil {
		return "", err
	}
	slices.Sort(headers)
	var b strings.Builder
	for _, path := range append(headers, source) {
		text, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "#line 1 %q\n%s\n", filepath.Base(path), text)
	}
	return b.String(), nil
}

func write(c *nvrtc, source, text string, check bool) error {
	ptx, _, err := c.compile(text, "--gpu-architecture=compute_80", "--std=c++17")
	if err != nil {
		return err
	}
	to := strings.TrimSuffix(source, ".cu") + ".ptx"
	if !check {
		return os.WriteFile(to, ptx, 0o644)
	}
	old, err := os.ReadFile(to)
	if err != nil {
		return err
	}
	if !bytes.Equal(old, ptx) {
		return fmt.Errorf("%s is not what NVRTC makes of the source: run scripts/ptx.sh", to)
	}
	fmt.Printf("%s: %d bytes, as committed\n", filepath.Base(to), len(ptx))
	return nil
}

var (
	ofKernel  = regexp.MustCompile(`Compiling entry function '(\w+)'`)
	ofSpills  = regexp.MustCompile(`(\d+) bytes spill stores, (\d+) bytes spill loads`)
	ofNumbers = regexp.MustCompile(`Used (\d+) registers(?:, (\d+) bytes smem)?`)
)

// report prints a row for each kernel: name, architecture, registers, bytes of static shared memory. A spill is an error: none of these kernels needs one.
func report(c *nvrtc, text, arch string) error {
	_, log, err := c.compile(text, "--gpu-architecture="+arch, "--std=c++17", "--ptxas-options=-v")
	if err != nil {
		return err
	}
	var kernel string
	var kernels int
	for _, line := range strings.Split(log, "\n") {
		if m := ofKernel.FindStringSubmatch(line); m != nil {
			kernel = m[1]
		}
		if m := ofSpills.FindStringSubmatch(line); m != nil && (m[1] != "0" || m[2] != "0") {
			return fmt.Errorf("%s on %s spills %s bytes and loads %s", kernel, arch, m[1], m[2])
		}
		if m := ofNumbers.FindStringSubmatch(line); m != nil {
			fmt.Printf("%s %s %s %s\n", kernel, arch, m[1], cmp.Or(m[2], "0"))
			kernels++
		}
	}
	if want := strings.Count(text, "extern \"C\" __global__ "); kernels != want {
		return fmt.Errorf("ptxas told of %d kernels, want %d:\n%s", kernels, want, log)
	}
	return nil
}
