package chaos

import (
	"fmt"
	"time"
)

// Series is one kind of fault again and again, each on a cluster that is whole again after the last one: that is what
// recovery is measured with, where a mixed schedule looks for what nobody thought of.
type Series struct {
	Name         string
	Kinds        []Kind
	Nodes, Count int
	Steps        int           // of the embedded job with small batches
	Every        time.Duration // 0: as soon as all nodes follow the log again
	Limit        time.Duration // for the 99th percentile of the time to the next committed step, beside one step; 0: none
	Goodput      float64       // least share of the undisturbed rate; 0: not measured
}

// seriesSteps outlast 100 faults on two cores. All series train the same job, so one undisturbed run serves them all.
const seriesSteps = 5000

// AllSeries are those of docs/reliability.md.
func AllSeries() []Series {
	return []Series{
		{Name: "worker", Kinds: []Kind{Kill}, Nodes: 3, Count: 100, Steps: seriesSteps, Limit: 2 * time.Second},
		{Name: "leader", Kinds: []Kind{Leader}, Nodes: 3, Count: 100, Steps: seriesSteps, Limit: 3 * time.Second},
		{Name: "partition", Kinds: []Kind{Partition}, Nodes: 5, Count: 100, Steps: seriesSteps},
		{Name: "outage", Kinds: []Kind{Outage}, Nodes: 3, Count: 50, Steps: seriesSteps},
		{Name: "goodput", Kinds: []Kind{Kill, Leader}, Nodes: 3, Count: 6, Steps: seriesSteps, Every: 30 * time.Second, Goodput: 0.95},
	}
}

// SeriesNamed finds a series.
func SeriesNamed(name string) (Series, error) {
	var names []string
	for _, s := range AllSeries() {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return Series{}, fmt.Errorf("chaos: series: %q is not one of %v", name, names)
}

// Sample is a number of tokens that were seen committed at a time.
type Sample struct {
	At     time.Time
	Tokens uint64
}

// Goodput is what was committed from the first fault on until one interval after the last, as a share of what the
// cluster makes undisturbed. That rate is taken from the last third of the intervals before and after each fault,
// because it drifts with the lengths of the examples. 0 if there is nothing to go by.
//
// Nothing is deducted for nodes that were down: where several nodes share a machine's cores, the others could use them.
func Goodput(samples []Sample, faults []time.Time, every time.Duration) float64 {
	rate := func(from, to time.Time) float64 {
		var sum uint64
		for _, s := range samples {
			if !s.At.Before(from) && s.At.Before(to) {
				sum += s.Tokens
			}
		}
		return float64(sum) / to.Sub(from).Seconds()
	}
	if every <= 0 {
		return 0
	}
	var made, possible float64
	for _, f := range faults {
		calm := (rate(f.Add(-every/3), f) + rate(f.Add(every*2/3), f.Add(every))) / 2
		made += rate(f, f.Add(every))
		possible += calm
	}
	if possible == 0 {
		return 0
	}
	return made / possible
}
