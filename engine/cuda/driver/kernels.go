//go:build cuda && linux

package driver

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"unsafe"

	"gorgonia.org/cu"

	"lorad/engine/cuda/device"
)

// kernels is what can be launched. A module is given to the driver, which compiles it for the device, when the first of its kernels is launched.
type kernels struct {
	modules []string
	home    map[string]int // kernel: its module
	loaded  map[int]cu.Module
	ready   map[string]*kernel
	slots   [maxArguments]uint64
	at      [maxArguments]unsafe.Pointer
}

type kernel struct {
	function cu.Function
	shared   int // bytes of dynamic shared memory that it is allowed
}

const (
	maxArguments = 32
	sharedForAll = 48 << 10 // bytes that a kernel may have without being allowed
)

var entry = regexp.MustCompile(`(?m)^\s*(?:\.visible\s+|\.weak\s+)?\.entry\s+([A-Za-z_$%][\w$]*)`)

// add finds out which kernels are in the modules.
func (k *kernels) add(modules []string) error {
	*k = kernels{modules: modules, home: map[string]int{}, loaded: map[int]cu.Module{}, ready: map[string]*kernel{}}
	for i := range k.at {
		k.at[i] = unsafe.Pointer(&k.slots[i])
	}
	for i, text := range modules {
		for _, m := range entry.FindAllStringSubmatch(text, -1) {
			if _, twice := k.home[m[1]]; twice {
				return fmt.Errorf("kernel %s is in two modules", m[1])
			}
			k.home[m[1]] = i
		}
	}
	return nil
}

func (k *kernels) find(name string) (*kernel, error) {
	if f := k.ready[name]; f != nil {
		return f, nil
	}
	i, ok := k.home[name]
	if !ok {
		return nil, errors.New("no such kernel in the modules")
	}
	module, ok := k.loaded[i]
	if !ok {
		var err error
		if module, err = cu.LoadData(k.modules[i]); err != nil {
			return nil, fmt.Errorf("compile its module: %w", err)
		}
		k.loaded[i] = module
	}
	f, err := module.Function(name)
	if err != nil {
		return nil, err
	}
	k.ready[name] = &kernel{function: f, shared: sharedForAll}
	return k.ready[name], nil
}

func (k *kernels) launch(name string, g device.Grid, args []any, on cu.Stream) error {
	f, err := k.find(name)
	if err != nil {
		return err
	}
	if len(args) > maxArguments {
		return fmt.Errorf("%d arguments", len(args))
	}
	for i, a := range args {
		if k.slots[i], err = slot(a); err != nil {
			return fmt.Errorf("argument %d: %w", i, err)
		}
	}
	if g.Shared > f.shared {
		if err := allowShared(f.function, g.Shared); err != nil {
			return fmt.Errorf("%d bytes of shared memory: %w", g.Shared, err)
		}
		f.shared = g.Shared
	}
	b := g.Blocks
	err = f.function.Launch(max(1, b[0]), max(1, b[1]), max(1, b[2]), g.Threads, 1, 1, g.Shared, on, k.at[:len(args)])
	if err != nil {
		return fmt.Errorf("%v blocks of %d threads with %d bytes: %w", b, g.Threads, g.Shared, err)
	}
	return nil
}

// slot is an argument's 8 bytes; a kernel reads the lower ones of what it declares shorter.
func slot(argument any) (uint64, error) {
	switch a := argument.(type) {
	case device.Ptr:
		return uint64(a), nil
	case int:
		return uint64(a), nil
	case int32:
		return uint64(a), nil
	case int64:
		return uint64(a), nil
	case uint32:
		return uint64(a), nil
	case uint64:
		return a, nil
	case float32:
		return uint64(math.Float32bits(a)), nil
	}
	return 0, fmt.Errorf("%T is no kernel's argument", argument)
}

func (k *kernels) close() error {
	var errs []error
	for _, m := range k.loaded {
		errs = append(errs, m.Unload())
	}
	*k = kernels{}
	return errors.Join(errs...)
}
