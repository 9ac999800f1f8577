// Package gpu says what GPUs this machine has and how they are now: memory, temperature, power, what slows them down, who else uses them.
//
// It asks NVIDIA's management library (NVML, through go-nvml), which the driver brings and which is loaded at run time; so the answer costs
// no CUDA context and no device memory. Values are plain, so whoever shows them or decides by them (node status, metrics, lorad doctor, a worker that looks for
// room) needs no C. Without the build tag cuda, or without a driver, Open says why there is nothing to ask.
//
// Devices are matched with CUDA's by their UUID: the two libraries may count in different orders.
package gpu

import "errors"

// ErrNone is in every error that says that there is nothing to ask.
var ErrNone = errors.New("no NVML")

// Device is a GPU at one moment. What its driver does not tell is 0.
type Device struct {
	Index       int      `json:"index"` // NVML's, as nvidia-smi shows it
	Name        string   `json:"name"`
	UUID        string   `json:"uuid"`
	Total       uint64   `json:"memory_bytes"`
	Used        uint64   `json:"used_bytes"` // with what the driver itself takes
	Free        uint64   `json:"free_bytes"`
	Others      uint64   `json:"others_bytes"` // of used: held by processes other than this one
	Processes   int      `json:"other_processes"`
	Temperature int      `json:"temperature_celsius"`
	Power       float64  `json:"power_watts"`
	PowerLimit  float64  `json:"power_limit_watts"`
	Busy        int      `json:"busy_percent"` // of the last moments
	Throttled   []string `json:"throttled"`    // why its clocks are lower than they could be under load
}

// Inventory is all GPUs of this machine.
type Inventory struct {
	Driver  string   `json:"driver"` // the driver's own version
	NVML    string   `json:"nvml"`
	Devices []Device `json:"devices"`
}

// Find is the device with a UUID.
func (i Inventory) Find(uuid string) (Device, bool) {
	for _, d := range i.Devices {
		if d.UUID == uuid {
			return d, true
		}
	}
	return Device{}, false
}
