package main

import (
	"reflect"
	"testing"

	"lorad/gpu"
	"lorad/proto"
)

// What the machine's library says arrives at whoever lists the nodes, whole.
func TestGPUColumn(t *testing.T) {
	one := &proto.Gpu{Index: 1, Name: "NVIDIA H200", Uuid: "GPU-1", MemoryBytes: 141 << 30, UsedBytes: 20 << 30, FreeBytes: 121 << 30, OthersBytes: 5 << 30,
		OtherProcesses: 1, TemperatureCelsius: 71, PowerWatts: 650, PowerLimitWatts: 700, BusyPercent: 99, Throttled: []string{"heat"}}
	want := gpu.Device{Index: 1, Name: "NVIDIA H200", UUID: "GPU-1", Total: 141 << 30, Used: 20 << 30, Free: 121 << 30, Others: 5 << 30,
		Processes: 1, Temperature: 71, Power: 650, PowerLimit: 700, Busy: 99, Throttled: []string{"heat"}}
	views := gpuViews([]*proto.Gpu{one})
	if !reflect.DeepEqual(views, []gpu.Device{want}) {
		t.Errorf("%+v", views)
	}
	for column, all := range map[string][]gpu.Device{
		"-": {},
		"NVIDIA H200, 121 of 141 GiB free, 71 C, slowed by heat":     {want},
		"2 x NVIDIA H200, 242 of 282 GiB free, 71 C, slowed by heat": {want, want},
	} {
		if got := gpuColumn(all); got != column {
			t.Errorf("%q, want %q", got, column)
		}
	}
}
