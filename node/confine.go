package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lorad/job"
)

// confine checks that every path of a job from elsewhere stays below root, also through symbolic links: whoever sent it
// is not the owner of this machine's other files.
func confine(j job.Job, root string) error {
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return fmt.Errorf("workspace: %w", err)
	}
	paths := []string{j.LoraModelDir, j.OutputDir}
	if j.BaseModel != EmbeddedBase {
		paths = append(paths, j.BaseModel)
	}
	for _, d := range slices.Concat(j.Datasets, j.TestDatasets) {
		paths = append(paths, d.Path)
	}
	for _, p := range paths {
		if p == "" {
			continue
		}
		real, err := resolved(filepath.Clean(p))
		if err != nil {
			return fmt.Errorf("path in a job from elsewhere: %w", err)
		}
		if !strings.HasPrefix(real, root+string(filepath.Separator)) {
			return fmt.Errorf("path %s in a job from elsewhere: outside of the node's workspace: give one below it, relative to it", p)
		}
	}
	return nil
}

// resolved is a path with the links in it followed as far as it exists; the rest stays as it is.
func resolved(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return real, err
	}
	if _, err := os.Lstat(path); err == nil { // it would be made where the link points to
		return "", fmt.Errorf("%s is a link to nowhere", path)
	}
	parent, err := resolved(filepath.Dir(path))
	return filepath.Join(parent, filepath.Base(path)), err
}
