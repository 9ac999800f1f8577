// Command cidemo checks what two runs of `lorad demo -o json` printed: the promises of README.md in numbers.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
)

type measured struct {
	Perplexity        float64 `json:"perplexity"`
	Accuracy          float64 `json:"accuracy"`
	HallucinationRate float64 `json:"hallucination_rate"`
}

type result struct {
	Nodes         int      `json:"nodes"`
	Steps         int      `json:"steps"`
	Base          measured `json:"base"`
	Adapted       measured `json:"adapted"`
	AdapterPath   string   `json:"adapter_path"`
	AdapterSHA256 string   `json:"adapter_sha256"`
	WallSeconds   float64  `json:"wall_seconds"`
}

func main() {
	if err := check(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "cidemo:", err)
		os.Exit(1)
	}
}

func read(path string) (r result, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return r, err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&r); err != nil {
		return r, fmt.Errorf("%s is not JSON: %w", path, err)
	}
	if dec.More() {
		return r, fmt.Errorf("%s has more than one JSON value", path)
	}
	return r, nil
}

func check(threePath, onePath string) error {
	three, err := read(threePath)
	if err != nil {
		return err
	}
	one, err := read(onePath)
	if err != nil {
		return err
	}
	fmt.Printf("three nodes: %+v\none node:    %+v\n", three, one)
	for _, c := range []struct {
		ok   bool
		want string
	}{
		{three.Nodes == 3 && one.Nodes == 1, "three nodes and one"},
		{three.Steps > 0 && three.Steps == one.Steps, "the same number of steps"},
		{len(three.AdapterSHA256) == 64 && three.AdapterSHA256 == one.AdapterSHA256, "the same adapter from three nodes and from one"},
		{three.Adapted.Accuracy >= three.Base.Accuracy+0.4, "the adapter makes at least 40 points more answers right"},
		{three.Adapted.HallucinationRate < three.Base.HallucinationRate, "the adapter makes fewer answers name strangers"},
		{three.Adapted.Perplexity < three.Base.Perplexity, "the adapter lowers the perplexity"},
		{three.WallSeconds < 120, "under two minutes"},
	} {
		if !c.ok {
			return fmt.Errorf("broken promise: %s", c.want)
		}
	}
	return nil
}
