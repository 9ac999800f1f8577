package main

import (
	"fmt"
	"log/slog"
	"strings"

	"lorad/gpu"
	"lorad/proto"
)

// openMonitor begins to watch this machine's GPUs; nil where there is nothing to watch.
func (d *daemon) openMonitor(log *slog.Logger) *gpu.Monitor {
	m, err := gpu.Open()
	if err != nil {
		log.Debug("GPUs are not watched", "cause", err)
		return nil
	}
	d.undo(m.Close)
	return m
}

// sayGPUs says how they are whenever it is asked.
func sayGPUs(m *gpu.Monitor, log *slog.Logger) func() []*proto.Gpu {
	if m == nil {
		return nil
	}
	return func() []*proto.Gpu {
		now, err := m.Look()
		if err != nil {
			log.Warn("a GPU does not answer", "cause", err)
		}
		var out []*proto.Gpu
		for _, g := range now.Devices {
			out = append(out, &proto.Gpu{
				Index: uint32(g.Index), Name: g.Name, Uuid: g.UUID, MemoryBytes: g.Total, UsedBytes: g.Used, FreeBytes: g.Free, OthersBytes: g.Others,
				OtherProcesses: uint32(g.Processes), TemperatureCelsius: uint32(g.Temperature), PowerWatts: g.Power, PowerLimitWatts: g.PowerLimit,
				BusyPercent: uint32(g.Busy), Throttled: g.Throttled,
			})
		}
		return out
	}
}

// gpuViews is what a node says of its GPUs, as -o json shows it.
func gpuViews(all []*proto.Gpu) []gpu.Device {
	out := []gpu.Device{}
	for _, g := range all {
		out = append(out, gpu.Device{
			Index: int(g.Index), Name: g.Name, UUID: g.Uuid, Total: g.MemoryBytes, Used: g.UsedBytes, Free: g.FreeBytes, Others: g.OthersBytes,
			Processes: int(g.OtherProcesses), Temperature: int(g.TemperatureCelsius), Power: g.PowerWatts, PowerLimit: g.PowerLimitWatts,
			Busy: int(g.BusyPercent), Throttled: append([]string{}, g.Throttled...),
		})
	}
	return out
}

// gpuColumn is a node's GPUs in a few words: "2 x NVIDIA H200, 250 of 282 GiB free, 71 C, heat".
func gpuColumn(all []gpu.Device) string {
	if len(all) == 0 {
		return "-"
	}
	var free, total uint64
	hottest, slowed := 0, ""
	for _, g := range all {
		free, total, hottest = free+g.Free, total+g.Total, max(hottest, g.Temperature)
		if len(g.Throttled) > 0 {
			slowed = ", slowed by " + strings.Join(g.Throttled, " and ")
		}
	}
	name := all[0].Name
	if len(all) > 1 {
		name = fmt.Sprintf("%d x %s", len(all), name)
	}
	return fmt.Sprintf("%s, %.0f of %.0f GiB free, %d C%s", name, float64(free)/(1<<30), float64(total)/(1<<30), hottest, slowed)
}
