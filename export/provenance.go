package export

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"lorad/internal/durable"
)

// ProvenanceFile is where Provenance is kept, beside adapter_config.json.
const ProvenanceFile = "lorad.json"

// Provenance is what lorad knows of an adapter and PEFT has no place for.
type Provenance struct {
	Version int    `json:"version"`          // 1
	Base    string `json:"base_fingerprint"` // hex of model.Folder.Fingerprint
	FourBit string `json:"base_quantisation,omitempty"`
	DType   string `json:"compute_dtype,omitempty"` // of products with frozen weights, if it was not f32
}

// Forms of Provenance.FourBit.
const (
	NF4       = "nf4"
	NF4Nested = "nf4, double quantisation"
)

// Write writes dir/lorad.json.
func (p Provenance) Write(dir string) error {
	p.Version = 1
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, ProvenanceFile), append(b, '\n'), 0o644)
}

// maxProvenance bounds the file.
const maxProvenance = 1 << 20

// ReadProvenance reads lorad.json; an adapter that others made has none, which is no error.
func ReadProvenance(dir fs.FS) (p Provenance, err error) {
	b, err := fs.ReadFile(dir, ProvenanceFile)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err == nil && len(b) > maxProvenance {
		err = fmt.Errorf("%d bytes are too many", len(b))
	}
	if err == nil {
		err = json.NewDecoder(bytes.NewReader(b)).Decode(&p)
	}
	if err == nil && p.Version != 1 {
		err = fmt.Errorf("version %d is not known; use a newer lorad", p.Version)
	}
	if err != nil {
		return p, fmt.Errorf("read %s: %w", ProvenanceFile, err)
	}
	return p, nil
}
