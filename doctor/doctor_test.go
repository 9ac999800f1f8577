package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lorad/engine/cuda/device"
	"lorad/engine/cuda/driver"
	"lorad/gpu"
)

// sound is a machine with nothing to complain about, GPU included.
func sound() Facts {
	return Facts{
		Processor: "avx512", Cores: 64, Spare: 100 << 30, Dir: "/state", DiskFree: 100 << 30, Clock: time.Millisecond, Port: ":7840", NVIDIA: 1,
		CUDA: driver.Found{Driver: "CUDA 12.4", BLAS: "cuBLAS 12.4.5", Devices: []device.Info{{Name: "NVIDIA H200", UUID: "GPU-1", Compute: [2]int{9, 0}, Memory: 141 << 30}}},
		GPUs: gpu.Inventory{Driver: "550.54.15", Devices: []gpu.Device{{UUID: "GPU-1", Free: 140 << 30, Temperature: 40}}},
	}
}

func TestASoundMachine(t *testing.T) {
	all := Examine(sound())
	if Worst(all) != OK {
		t.Errorf("%+v", all)
	}
	if len(all) != 9 {
		t.Errorf("%d findings", len(all))
	}
}

// Each thing that may be wrong is one finding of its level, says what to do, and leaves the others alone.
func TestFindings(t *testing.T) {
	none := fmt.Errorf("%w: no CUDA driver: libcuda.so.1: not there: install it", driver.ErrOff)
	for name, c := range map[string]struct {
		change func(*Facts)
		check  string
		level  Level
		says   string
	}{
		"old processor":     {func(f *Facts) { f.Processor = "go" }, "processor", Warning, "go"},
		"little memory":     {func(f *Facts) { f.Spare = 100 << 20 }, "memory", Warning, "0.1 GiB"},
		"memory unknown":    {func(f *Facts) { f.Spare = 0 }, "memory", Note, "does not say"},
		"little disk":       {func(f *Facts) { f.DiskFree = 1 << 30 }, "disk", Warning, "1.0 GiB"},
		"no disk":           {func(f *Facts) { f.DiskFree = 1 << 20 }, "disk", Problem, "/state"},
		"read-only":         {func(f *Facts) { f.DiskErr = errors.New("read-only file system") }, "disk", Problem, "read-only"},
		"clock unset":       {func(f *Facts) { f.ClockErr = errors.New("not synchronised") }, "clock", Warning, "not synchronised"},
		"clock off":         {func(f *Facts) { f.Clock = time.Minute }, "clock", Warning, "1m0s"},
		"port taken":        {func(f *Facts) { f.PortErr = errors.New("address already in use") }, "port", Warning, "in use"},
		"no driver":         {func(f *Facts) { f.CUDA = driver.Found{DriverErr: none} }, "cuda", Problem, "1 NVIDIA GPU on the bus"},
		"no driver, no GPU": {func(f *Facts) { f.CUDA, f.NVIDIA = driver.Found{DriverErr: none}, 0 }, "cuda", Note, "no CUDA driver: libcuda.so.1"},
		"no cuBLAS":         {func(f *Facts) { f.CUDA.BLASErr = errors.New("no cuBLAS: not there: install it") }, "cublas", Problem, "no cuBLAS"},
		"no NVML": {func(f *Facts) {
			f.NVMLErr, f.GPUs = fmt.Errorf("%w: not there: install it", gpu.ErrNone), gpu.Inventory{}
		}, "nvml", Warning, "not seen"},
		"old GPU":             {func(f *Facts) { f.CUDA.Devices[0].Compute = [2]int{7, 5} }, "gpu 0", Warning, "7.5"},
		"GPU full of others":  {func(f *Facts) { f.GPUs.Devices[0].Free, f.GPUs.Devices[0].Processes = 1<<30, 2 }, "gpu 0", Warning, "1.0 GiB free"},
		"hot GPU":             {func(f *Facts) { f.GPUs.Devices[0].Temperature = 90 }, "gpu 0", Warning, "90 C"},
		"GPU held at a limit": {func(f *Facts) { f.GPUs.Devices[0].Throttled = []string{"power limit"} }, "gpu 0", Note, "power limit"},
	} {
		f := sound()
		c.change(&f)
		for _, got := range Examine(f) {
			if got.Check != c.check {
				if got.Level != OK {
					t.Errorf("%s: also %+v", name, got)
				}
				continue
			}
			if got.Level != c.level || !strings.Contains(got.Text, c.says) || got.Fix == "" {
				t.Errorf("%s: %+v", name, got)
			}
		}
		if Worst(Examine(f)) != c.level {
			t.Errorf("%s: worst is %s", name, Worst(Examine(f)))
		}
	}
}

func TestRoom(t *testing.T) {
	dir := t.TempDir()
	at, free, err := room(filepath.Join(dir, "not", "yet"))
	if at != dir || free <= 0 || err != nil {
		t.Errorf("%s, %d, %v", at, free, err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestOnBus(t *testing.T) {
	dir := t.TempDir()
	for name, ids := range map[string][2]string{"gpu": {"0x10de", "0x030200"}, "its sound": {"0x10de", "0x040300"}, "another": {"0x1002", "0x030000"}} {
		at := filepath.Join(dir, name)
		if err := errors.Join(os.Mkdir(at, 0o700), os.WriteFile(filepath.Join(at, "vendor"), []byte(ids[0]+"\n"), 0o600),
			os.WriteFile(filepath.Join(at, "class"), []byte(ids[1]+"\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if n := onBus(dir); n != 1 {
		t.Errorf("%d GPUs", n)
	}
}

// Whatever this machine is, it is looked at without harm.
func TestLook(t *testing.T) {
	all := Examine(Look(Where{Dir: t.TempDir(), Port: "127.0.0.1:0", Spare: 8 << 30}))
	for _, f := range all {
		if f.Level != OK && f.Fix == "" {
			t.Errorf("no fix: %+v", f)
		}
	}
}
