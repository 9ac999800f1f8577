package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"lorad/internal/durable"
)

// place is where a node is found. It is kept in the state directory, because a node that is started again without a word belongs where it was,
// and not on all interfaces of the machine under the machine's name.
type place struct {
	Name      string `json:"name,omitempty"`
	Bind      string `json:"bind,omitempty"`
	Advertise string `json:"advertise,omitempty"`
}

const (
	placeFile   = "place.json"
	defaultBind = ":7840"
	mostPlace   = 1 << 16 // bytes
)

// placed is the configuration with what it leaves open as it was before. An address for others belongs to the one that is listened on:
// whoever gives one of them gives both.
func placed(cfg daemonConfig) (daemonConfig, error) {
	was, err := readPlace(filepath.Join(cfg.Dir, placeFile))
	if err != nil {
		return cfg, err
	}
	if cfg.Name == "" {
		cfg.Name = was.Name
	}
	if cfg.Bind == "" && cfg.Advertise == "" {
		cfg.Bind, cfg.Advertise = was.Bind, was.Advertise
	}
	if cfg.Bind == "" {
		cfg.Bind = defaultBind
	}
	return cfg, nil
}

func readPlace(path string) (p place, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err == nil && info.Size() > mostPlace {
		err = errors.New("it is too large")
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(path)
	}
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err != nil {
		return p, fmt.Errorf("read %s: %w; delete it, and give --name, --bind and --advertise again", path, err)
	}
	return p, nil
}

// keepPlace notes what was asked for, for the next start. Nothing is written that is there: the disk may be full.
func keepPlace(cfg daemonConfig) error {
	path, now := filepath.Join(cfg.Dir, placeFile), place{cfg.Name, cfg.Bind, cfg.Advertise}
	if was, err := readPlace(path); err == nil && was == now {
		return nil
	}
	text, err := json.Marshal(now)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, append(text, '\n'), 0o600)
}
