//go:build cuda && linux

package gpu

import (
	"errors"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh200"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
)

// sensing gives a mocked device what go-nvml's own mocks leave out.
func sensing(d *server.Device) {
	none := func() ([]nvml.ProcessInfo, nvml.Return) { return nil, nvml.SUCCESS }
	d.GetComputeRunningProcessesFunc, d.GetGraphicsRunningProcessesFunc = none, none
	d.GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) { return 0, nvml.ERROR_NOT_SUPPORTED }
	watts := func() (uint32, nvml.Return) { return 0, nvml.ERROR_NOT_SUPPORTED }
	d.GetPowerUsageFunc, d.GetEnforcedPowerLimitFunc = watts, watts
	d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) { return nvml.Utilization{}, nvml.ERROR_NOT_SUPPORTED }
	d.GetCurrentClocksThrottleReasonsFunc = func() (uint64, nvml.Return) { return 0, nvml.ERROR_NOT_SUPPORTED }
}

func box(t *testing.T, s *server.Server) (*Monitor, []*server.Device) {
	t.Helper()
	var all []*server.Device
	for _, d := range s.Devices {
		sensing(d.(*server.Device))
		all = append(all, d.(*server.Device))
	}
	m, err := open(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m, all
}

func TestInventoryOfWholeMachines(t *testing.T) {
	for name, s := range map[string]*server.Server{"A100": dgxa100.New(), "H100": dgxh100.New(), "H200": dgxh200.New()} {
		m, _ := box(t, s)
		i, err := m.Look()
		if err != nil || len(i.Devices) != 8 || i.Driver == "" || i.NVML == "" {
			t.Fatalf("%s: %+v, %v", name, i, err)
		}
		for _, d := range i.Devices {
			if !strings.Contains(d.Name, name) || !strings.HasPrefix(d.UUID, "GPU-") || d.Total == 0 {
				t.Errorf("%s: %+v", name, d)
			}
			if found, ok := i.Find(d.UUID); !ok || found.Index != d.Index {
				t.Errorf("%s: %s is device %d, found %d", name, d.UUID, d.Index, found.Index)
			}
		}
	}
}

func TestADeviceInUse(t *testing.T) {
	m, all := box(t, dgxh200.New())
	d := all[3]
	d.GetMemoryInfoFunc = func() (nvml.Memory, nvml.Return) { return nvml.Memory{Total: 100, Used: 60, Free: 40}, nvml.SUCCESS }
	d.GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) { return 71, nvml.SUCCESS }
	d.GetPowerUsageFunc = func() (uint32, nvml.Return) { return 512_300, nvml.SUCCESS }
	d.GetEnforcedPowerLimitFunc = func() (uint32, nvml.Return) { return 700_000, nvml.SUCCESS }
	d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) { return nvml.Utilization{Gpu: 97}, nvml.SUCCESS }
	d.GetCurrentClocksThrottleReasonsFunc = func() (uint64, nvml.Return) { return 0x1 | 0x4 | 0x20, nvml.SUCCESS }
	mine := uint32(os.Getpid())
	d.GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
		return []nvml.ProcessInfo{{Pid: mine, UsedGpuMemory: 30}, {Pid: mine + 1, UsedGpuMemory: 20}, {Pid: mine + 2, UsedGpuMemory: math.MaxUint64}}, nvml.SUCCESS
	}
	d.GetGraphicsRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
		return []nvml.ProcessInfo{{Pid: mine + 1, UsedGpuMemory: 20}}, nvml.SUCCESS // the same one again
	}
	i, err := m.Look()
	if err != nil {
		t.Fatal(err)
	}
	got := i.Devices[3]
	if !slices.Equal(got.Throttled, []string{"power limit", "heat"}) {
		t.Errorf("throttled: %q", got.Throttled)
	}
	got.Throttled = nil
	want := Device{Index: 3, Name: got.Name, UUID: got.UUID, Total: 100, Used: 60, Free: 40, Others: 20, Processes: 2, Temperature: 71, Power: 512.3, PowerLimit: 700, Busy: 97}
	if d := got; d.Others != want.Others || d.Processes != want.Processes || d.Free != want.Free || d.Temperature != want.Temperature ||
		d.Power != want.Power || d.PowerLimit != want.PowerLimit || d.Busy != want.Busy {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// A GPU that has fallen off the bus is an error; the others are still told.
func TestALostDevice(t *testing.T) {
	m, all := box(t, dgxa100.New())
	all[0].GetMemoryInfoFunc = func() (nvml.Memory, nvml.Return) { return nvml.Memory{}, nvml.ERROR_GPU_IS_LOST }
	i, err := m.Look()
	if err == nil || !strings.Contains(err.Error(), "device 0") || len(i.Devices) != 7 || i.Devices[0].Index != 1 {
		t.Errorf("%d devices, %v", len(i.Devices), err)
	}
}

func TestNoLibrary(t *testing.T) {
	for _, r := range []nvml.Return{nvml.ERROR_LIBRARY_NOT_FOUND, nvml.ERROR_DRIVER_NOT_LOADED, nvml.ERROR_LIB_RM_VERSION_MISMATCH, nvml.ERROR_UNKNOWN} {
		s := dgxa100.New()
		s.InitFunc = func() nvml.Return { return r }
		if _, err := open(s); !errors.Is(err, ErrNone) {
			t.Errorf("%v: %v", r, err)
		}
	}
}
