package doctor

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"lorad/engine/cpu"
	"lorad/engine/cuda/driver"
	"lorad/gpu"
)

// Where says what to look at.
type Where struct {
	Dir     string // state directory
	Port    string // that a node would listen on
	Running bool   // a node does
	Spare   int64  // bytes of memory that a run could take
}

// Look gathers the facts. It loads the CUDA driver and NVML, if they are there, and takes no memory of a device.
func Look(w Where) Facts {
	levels := cpu.Available()
	f := Facts{Cores: runtime.NumCPU(), Processor: levels[len(levels)-1].String(), Spare: w.Spare, Port: w.Port, Running: w.Running}
	f.Dir, f.DiskFree, f.DiskErr = room(w.Dir)
	f.Clock, f.ClockErr = clockError()
	if !w.Running {
		f.PortErr = listen(w.Port)
	}
	f.NVIDIA = onBus("/sys/bus/pci/devices")
	f.CUDA = driver.Look(driver.Config{})
	f.GPUs, f.NVMLErr = inventory()
	return f
}

func inventory() (gpu.Inventory, error) {
	m, err := gpu.Open()
	if err != nil {
		return gpu.Inventory{}, err
	}
	defer m.Close()
	return m.Look()
}

// room is the free space where the state directory is or will be, and whether it can be written there.
func room(dir string) (at string, free int64, err error) {
	for at = dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(at); err == nil || at == filepath.Dir(at) {
			break
		}
	}
	probe, err := os.CreateTemp(at, ".lorad-doctor-")
	if err != nil {
		return at, 0, fmt.Errorf("the state directory cannot be written: %w", err)
	}
	probe.Close()
	if err := os.Remove(probe.Name()); err != nil {
		return at, 0, err
	}
	free, err = freeBytes(at)
	return at, free, err
}

func listen(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return l.Close()
}

// onBus counts display and compute devices of NVIDIA's, driver or not.
func onBus(devices string) (n int) {
	all, _ := filepath.Glob(filepath.Join(devices, "*", "vendor"))
	for _, vendor := range all {
		class, _ := os.ReadFile(filepath.Join(filepath.Dir(vendor), "class"))
		id, _ := os.ReadFile(vendor)
		if strings.TrimSpace(string(id)) == "0x10de" && strings.HasPrefix(string(class), "0x03") {
			n++
		}
	}
	return n
}
