package model

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"

	"lorad/model/safetensors"
)

const (
	singleFile = "model.safetensors"
	indexFile  = "model.safetensors.index.json"
)

// weights finds each tensor in the file that holds it.
type weights struct {
	files []*safetensors.File
	at    map[string]*safetensors.File // by tensor name
}

// openWeights opens the single file or the shards; nil without an error when there is neither.
func openWeights(fsys fs.FS) (*weights, error) {
	w := &weights{at: map[string]*safetensors.File{}}
	single, err := w.openFile(fsys, singleFile)
	if err == nil {
		for _, name := range single.Names() {
			w.at[name] = single
		}
		return w, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var index struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := readJSON(fsys, indexFile, &index); err != nil {
		return nil, err
	}
	if index.WeightMap == nil {
		return nil, nil
	}
	if err := w.openShards(fsys, index.WeightMap); err != nil {
		w.close()
		return nil, fmt.Errorf("%s: %w", indexFile, err)
	}
	return w, nil
}

// openShards follows the index; every tensor must be in the shard the index says.
func (w *weights) openShards(fsys fs.FS, weightMap map[string]string) error {
	shards := map[string]*safetensors.File{}
	for _, tensor := range slices.Sorted(maps.Keys(weightMap)) {
		name := weightMap[tensor]
		if name != path.Base(name) || !fs.ValidPath(name) || path.Ext(name) != ".safetensors" {
			return fmt.Errorf("shard name %q is not a safetensors file of this folder", name)
		}
		shard := shards[name]
		if shard == nil {
			var err error
			if shard, err = w.openFile(fsys, name); err != nil {
				return err
			}
			shards[name] = shard
		}
		if _, _, ok := shard.Info(tensor); !ok {
			return fmt.Errorf("%s should be in %s but is not; the download is incomplete or mixed", tensor, name)
		}
		w.at[tensor] = shard
	}
	return nil
}

func (w *weights) openFile(fsys fs.FS, name string) (*safetensors.File, error) {
	f, err := safetensors.OpenFS(fsys, name)
	if err == nil {
		w.files = append(w.files, f)
	}
	return f, err
}

func (w *weights) shape(name string) ([]int, bool) {
	f := w.at[name]
	if f == nil {
		return nil, false
	}
	_, shape, ok := f.Info(name)
	return shape, ok
}

func (w *weights) tensor(name string) ([]float32, []int, error) {
	f := w.at[name]
	if f == nil {
		return nil, nil, fmt.Errorf("read tensor %q: the model has no such weight: %w", name, fs.ErrNotExist)
	}
	return f.F32(name)
}

func (w *weights) close() error {
	var errs []error
	for _, f := range w.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
