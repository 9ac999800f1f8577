//go:build cuda && linux

package gpu

import (
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// Monitor holds the library open. It may be asked from any goroutine.
type Monitor struct{ lib nvml.Interface }

// Open loads the library and starts it.
func Open() (*Monitor, error) { return open(nvml.New()) }

func open(lib nvml.Interface) (*Monitor, error) {
	switch r := lib.Init(); r {
	case nvml.SUCCESS:
		return &Monitor{lib}, nil
	case nvml.ERROR_LIBRARY_NOT_FOUND:
		return nil, fmt.Errorf("%w: libnvidia-ml.so.1 is not there: install NVIDIA's driver; in a container, start it with --gpus all and the utility capability", ErrNone)
	case nvml.ERROR_DRIVER_NOT_LOADED:
		return nil, fmt.Errorf("%w: the kernel module is not loaded: run nvidia-smi as root, or restart the machine", ErrNone)
	case nvml.ERROR_LIB_RM_VERSION_MISMATCH:
		return nil, fmt.Errorf("%w: library and kernel module are of two versions: restart the machine after an update of the driver", ErrNone)
	default:
		return nil, fmt.Errorf("%w: start: %s", ErrNone, r.Error())
	}
}

// Close unloads the library.
func (m *Monitor) Close() { m.lib.Shutdown() }

// Look asks each device. An error is of a device that does not answer at all; the others are there nevertheless.
func (m *Monitor) Look() (Inventory, error) {
	var i Inventory
	i.Driver, _ = m.lib.SystemGetDriverVersion()
	i.NVML, _ = m.lib.SystemGetNVMLVersion()
	n, r := m.lib.DeviceGetCount()
	if r != nvml.SUCCESS {
		return i, fmt.Errorf("NVML: count devices: %s", r.Error())
	}
	var errs []error
	for index := range n {
		d, err := m.device(index)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		i.Devices = append(i.Devices, d)
	}
	return i, errors.Join(errs...)
}

func (m *Monitor) device(index int) (Device, error) {
	d := Device{Index: index}
	h, r := m.lib.DeviceGetHandleByIndex(index)
	if r != nvml.SUCCESS {
		return d, fmt.Errorf("NVML: device %d: %s", index, r.Error())
	}
	if d.UUID, r = h.GetUUID(); r != nvml.SUCCESS {
		return d, fmt.Errorf("NVML: device %d: UUID: %s", index, r.Error())
	}
	memory, r := h.GetMemoryInfo()
	if r != nvml.SUCCESS {
		return d, fmt.Errorf("NVML: device %d: memory: %s", index, r.Error())
	}
	d.Total, d.Used, d.Free = memory.Total, memory.Used, memory.Free
	d.Name, _ = h.GetName()
	sensors(&d, h)
	others(&d, h)
	return d, nil
}

// sensors asks what some devices do not have.
func sensors(d *Device, h nvml.Device) {
	if t, r := h.GetTemperature(nvml.TEMPERATURE_GPU); r == nvml.SUCCESS {
		d.Temperature = int(t)
	}
	if mw, r := h.GetPowerUsage(); r == nvml.SUCCESS {
		d.Power = float64(mw) / 1000
	}
	if mw, r := h.GetEnforcedPowerLimit(); r == nvml.SUCCESS {
		d.PowerLimit = float64(mw) / 1000
	}
	if u, r := h.GetUtilizationRates(); r == nvml.SUCCESS {
		d.Busy = int(u.Gpu)
	}
	bits, r := h.GetCurrentClocksThrottleReasons() // the name that every version has
	if r != nvml.SUCCESS {
		bits = 0
	}
	d.Throttled = throttled(bits)
}

// others counts who else uses the device. In a container processes have other numbers, and its own counts as one of them.
func others(d *Device, h nvml.Device) {
	seen := map[uint32]bool{uint32(os.Getpid()): true}
	for _, list := range []func() ([]nvml.ProcessInfo, nvml.Return){h.GetComputeRunningProcesses, h.GetGraphicsRunningProcesses} {
		all, r := list()
		if r != nvml.SUCCESS {
			continue
		}
		for _, p := range all {
			if seen[p.Pid] {
				continue
			}
			seen[p.Pid] = true
			d.Processes++
			if p.UsedGpuMemory != math.MaxUint64 { // not told
				d.Others += p.UsedGpuMemory
			}
		}
	}
}

// reasons are the bits of NVML's clocks event reasons that mean slower under load, in NVML's order. Not among them: idle, clocks
// that somebody has set, and displays.
var reasons = []struct {
	bit  uint64
	text string
}{
	{0x4, "power limit"}, {0x8, "hardware slowdown"}, {0x10, "kept in step with another GPU"}, {0x20, "heat"}, {0x40, "heat (hardware)"},
	{0x80, "power brake"}, {0x200, "board limit"}, {0x400, "reliability voltage"},
}

func throttled(bits uint64) []string {
	out := []string{}
	for _, r := range reasons {
		if bits&r.bit != 0 {
			out = append(out, r.text)
		}
	}
	return out
}
