// Package doctor looks at a machine as a node would use it, and says of each thing what it found and what to do about it.
//
// Look gathers facts (with I/O, under limits of time); Examine is a pure function from them to findings, so that each finding is tested without the
// machine that has it. A finding without a remedy is not worth printing: whoever adds one adds its fix.
//
// What a machine may well be without (a GPU, a running node) is a note, not a problem: lorad trains on processors.
package doctor

import (
	"fmt"
	"math"
	"strings"
	"time"

	"lorad/engine/cuda/driver"
	"lorad/gpu"
)

// Level is how bad a finding is.
type Level string

// Levels of findings. Only a Problem makes lorad doctor fail.
const (
	OK      Level = "ok"
	Note    Level = "note"
	Warning Level = "warning"
	Problem Level = "problem"
)

// Finding is one line of the report.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	Text  string `json:"text"`
	Fix   string `json:"fix,omitempty"`
}

// Facts is what Look finds.
type Facts struct {
	Processor string // instruction set of the CPU engine
	Cores     int
	Spare     int64 // bytes that a run could take; 0 = the system does not say

	Dir      string // state directory, or the nearest folder that exists on the way to it
	DiskFree int64
	DiskErr  error // it cannot be written

	Clock    time.Duration // the kernel's estimate of its own error
	ClockErr error         // it is not synchronised, or does not say
	Port     string
	PortErr  error // somebody listens there, or nobody may
	Running  bool  // a node of this state directory

	NVIDIA  int // GPUs of NVIDIA's on the PCI bus
	CUDA    driver.Found
	GPUs    gpu.Inventory
	NVMLErr error
}

// Limits below which a finding is made.
const (
	lowMemory   = 1 << 30
	lowDisk     = 2 << 30
	noDisk      = 256 << 20
	lowVRAM     = 2 << 30
	clockErrors = 5 * time.Second
	hotGPU      = 85 // degrees Celsius
)

// Examine judges. The order is that of the report.
func Examine(f Facts) []Finding {
	out := []Finding{processor(f), memory(f), disk(f), clock(f), port(f), cuda(f)}
	if f.CUDA.DriverErr == nil {
		out = append(out, blas(f))
	}
	if f.NVIDIA > 0 || f.CUDA.DriverErr == nil {
		out = append(out, nvml(f))
	}
	for i := range f.CUDA.Devices {
		out = append(out, deviceOf(f, i))
	}
	return out
}

// Worst is the highest level among findings.
func Worst(all []Finding) Level {
	worst := OK
	rank := map[Level]int{OK: 0, Note: 1, Warning: 2, Problem: 3}
	for _, f := range all {
		if rank[f.Level] > rank[worst] {
			worst = f.Level
		}
	}
	return worst
}

func processor(f Facts) Finding {
	out := Finding{Check: "processor", Level: OK, Text: fmt.Sprintf("%d cores, %s", f.Cores, f.Processor)}
	if f.Processor == "go" {
		out.Level, out.Fix = Warning, "training on this processor is many times slower than with AVX2 or NEON: in a virtual machine, pass the host's processor through"
	}
	return out
}

func memory(f Facts) Finding {
	out := Finding{Check: "memory", Level: OK, Text: gib(f.Spare) + " to spare"}
	switch {
	case f.Spare == 0 || f.Spare == math.MaxInt64:
		return Finding{Check: "memory", Level: Note, Text: "the system does not say what is free", Fix: "lorad plan says what a job takes"}
	case f.Spare < lowMemory:
		out.Level, out.Fix = Warning, "end other programs, or raise this container's limit; lorad plan says what a job takes"
	}
	return out
}

func disk(f Facts) Finding {
	out := Finding{Check: "disk", Level: OK, Text: fmt.Sprintf("%s free at %s", gib(f.DiskFree), f.Dir)}
	switch {
	case f.DiskErr != nil:
		return Finding{Check: "disk", Level: Problem, Text: f.DiskErr.Error(), Fix: "give this user a state directory to write in: --dir or LORAD_DIR"}
	case f.DiskFree < noDisk:
		out.Level, out.Fix = Problem, "make room, or choose another state directory with --dir: a node writes its log and checkpoints there"
	case f.DiskFree < lowDisk:
		out.Level, out.Fix = Warning, "base models and checkpoints of runs whose home is elsewhere are kept there: make room, or choose another --dir"
	}
	return out
}

func clock(f Facts) Finding {
	out := Finding{Check: "clock", Level: OK, Text: fmt.Sprintf("synchronised, error below %s", f.Clock.Round(time.Millisecond))}
	switch {
	case f.ClockErr != nil:
		return Finding{Check: "clock", Level: Warning, Text: f.ClockErr.Error(), Fix: "run chrony, systemd-timesyncd or ntpd: nodes whose clocks differ by an hour refuse each other, and times in logs mean little"}
	case f.Clock > clockErrors:
		out.Level, out.Fix = Warning, "see what chronyc tracking or timedatectl says: nodes whose clocks differ by an hour refuse each other, and times in logs mean little"
	}
	return out
}

func port(f Facts) Finding {
	switch {
	case f.Running:
		return Finding{Check: "port", Level: OK, Text: "this machine's node is running"}
	case f.PortErr != nil:
		return Finding{Check: "port", Level: Warning, Text: fmt.Sprintf("%s: %v", f.Port, f.PortErr), Fix: "end what listens there, or start the node with another --bind"}
	}
	return Finding{Check: "port", Level: OK, Text: f.Port + " is free; other nodes have to reach it through firewalls"}
}

// cuda: a machine without a GPU is well without a driver.
func cuda(f Facts) Finding {
	if f.CUDA.DriverErr == nil {
		return Finding{Check: "cuda", Level: OK, Text: fmt.Sprintf("driver for %s, %d GPU%s", f.CUDA.Driver, len(f.CUDA.Devices), plural(len(f.CUDA.Devices)))}
	}
	text, fix := split(f.CUDA.DriverErr)
	if f.NVIDIA == 0 {
		return Finding{Check: "cuda", Level: Note, Text: text, Fix: "nothing, if this machine is to train on its processor; otherwise " + fix}
	}
	return Finding{Check: "cuda", Level: Problem, Text: fmt.Sprintf("%d NVIDIA GPU%s on the bus, but %s", f.NVIDIA, plural(f.NVIDIA), text), Fix: fix}
}

func blas(f Facts) Finding {
	if f.CUDA.BLASErr == nil {
		return Finding{Check: "cublas", Level: OK, Text: f.CUDA.BLAS}
	}
	text, fix := split(f.CUDA.BLASErr)
	return Finding{Check: "cublas", Level: Problem, Text: text, Fix: fix}
}

func nvml(f Facts) Finding {
	if f.NVMLErr == nil {
		return Finding{Check: "nvml", Level: OK, Text: "driver " + f.GPUs.Driver}
	}
	text, fix := split(f.NVMLErr)
	return Finding{Check: "nvml", Level: Warning, Text: text + " (training works; temperature, power and other processes are not seen)", Fix: fix}
}

func deviceOf(f Facts, index int) Finding {
	d := f.CUDA.Devices[index]
	out := Finding{Check: fmt.Sprintf("gpu %d", index), Level: OK, Text: fmt.Sprintf("%s, compute capability %d.%d, %s", d.Name, d.Compute[0], d.Compute[1], gib(d.Memory))}
	if d.Compute[0] < 8 {
		out.Level, out.Fix = Warning, "it computes no bf16 products, and is not used: cards from Ampere on (RTX 30, A100) do"
		return out
	}
	now, ok := f.GPUs.Find(d.UUID)
	if !ok {
		return out
	}
	out.Text += fmt.Sprintf(", %s free, %d C", gib(int64(now.Free)), now.Temperature)
	switch {
	case now.Free < lowVRAM && now.Processes > 0:
		out.Level, out.Fix = Warning, fmt.Sprintf("%d other process%s hold %s of it: see nvidia-smi", now.Processes, suffix(now.Processes, "es"), gib(int64(now.Others)))
	case now.Temperature >= hotGPU:
		out.Level, out.Fix = Warning, "see to its cooling: it is about to lower its clocks"
	case len(now.Throttled) > 0:
		out.Level, out.Text, out.Fix = Note, out.Text+", slowed by "+strings.Join(now.Throttled, " and "), "more power or cooling make it faster: see nvidia-smi -q -d PERFORMANCE"
	}
	return out
}

// split takes an error apart that is written as "what: cause: what to do".
func split(err error) (text, fix string) {
	whole := err.Error()
	if i := strings.LastIndex(whole, ": "); i >= 0 {
		return whole[:i], whole[i+2:]
	}
	return whole, "see docs/gpu.md"
}

func gib(bytes int64) string { return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30)) }

func plural(n int) string { return suffix(n, "s") }

func suffix(n int, s string) string {
	if n == 1 {
		return ""
	}
	return s
}
