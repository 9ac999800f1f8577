package driver

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"lorad/engine/cuda/device"
)

// Product is everything about a matrix product that the choice of its algorithm follows from: device.Device.Gemm's arguments but for addresses, of which only
// the alignment matters, and factors.
type Product struct {
	TransA, TransB         bool
	M, N, K                int
	LDA, LDB, LDC          int
	In, Out                device.Type
	AlignA, AlignB, AlignC int // bytes, at most 256
}

func (p Product) String() string {
	turned := func(t bool) string {
		if t {
			return "^T"
		}
		return ""
	}
	return fmt.Sprintf("[%d,%d]%s x [%d,%d]%s", p.M, p.K, turned(p.TransA), p.K, p.N, turned(p.TransB))
}

// product is the key of a call.
func product(transA, transB bool, m, n, k int, a, b, c device.Matrix) Product {
	return Product{transA, transB, m, n, k, a.LD, b.LD, c.LD, a.Type, c.Type, alignment(a.At), alignment(b.At), alignment(c.At)}
}

// alignment is the largest power of two that an address is a multiple of, up to what allocations have.
func alignment(p device.Ptr) int {
	const most = 256
	return int((p | most) & -(p | most))
}

// algorithm is cublasLtMatmulAlgo_t: opaque, and good for the version of cuBLASLt and the device that it comes from.
type algorithm [8]uint64

// Table is what Tune has found on one kind of device with one version of cuBLASLt.
type Table struct {
	Device  string         `json:"device"`
	Version int            `json:"version"`
	Better  []tunedProduct `json:"better"`
	Sum     string         `json:"sum"` // of all the rest
}

// tunedProduct is a product with the algorithm that the heuristic names first, and one that is faster and has the same bits.
type tunedProduct struct {
	Product Product   `json:"product"`
	First   algorithm `json:"first"`
	By      algorithm `json:"by"`
}

// better is what to take instead of the heuristic's first choice.
func (t *Table) better(of Product, first algorithm) (algorithm, bool) {
	if t == nil {
		return algorithm{}, false
	}
	i := slices.IndexFunc(t.Better, func(e tunedProduct) bool { return e.Product == of && e.First == first })
	if i < 0 {
		return algorithm{}, false
	}
	return t.Better[i].By, true
}

// put replaces what there is for a product.
func (t *Table) put(e tunedProduct) {
	t.Better = slices.DeleteFunc(t.Better, func(old tunedProduct) bool { return old.Product == e.Product })
	t.Better = append(t.Better, e)
	slices.SortFunc(t.Better, func(a, b tunedProduct) int { return cmp.Compare(fmt.Sprint(a.Product), fmt.Sprint(b.Product)) })
}

func (t Table) sum() string {
	t.Sum = ""
	data, err := json.Marshal(t)
	if err != nil {
		return ""
	}
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

// tablePath is a table's file in a folder.
func tablePath(folder, gpu string, version int) string {
	name := regexp.MustCompile(`[^A-Za-z0-9]+`).ReplaceAllString(gpu, "-")
	return filepath.Join(folder, fmt.Sprintf("cublaslt-%d-%s.json", version, name))
}

// tableLimit bounds a file that is read: some hundred bytes for each product.
const tableLimit = 16 << 20

// readTable is the table for a device, empty if there is none. A damaged one is an error, and empty too: what it says would be computed with.
func readTable(folder, gpu string, version int) (*Table, error) {
	t := &Table{Device: gpu, Version: version}
	if folder == "" {
		return t, nil
	}
	path := tablePath(folder, gpu, version)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err == nil && info.Size() > tableLimit {
		err = fmt.Errorf("%d bytes", info.Size())
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(path)
	}
	if err == nil {
		*t = Table{}
		err = json.Unmarshal(data, t)
	}
	if err == nil && (t.Device != gpu || t.Version != version || t.Sum != t.sum()) {
		err = errors.New("it is not what was written")
	}
	if err != nil {
		return &Table{Device: gpu, Version: version}, fmt.Errorf("%s: damaged: %w: lorad bench --gpu all --tune makes it again", path, err)
	}
	return t, nil
}

// write puts the table into a folder, whole or not at all.
func (t *Table) write(folder string) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	t.Sum = t.sum()
	data, err := json.MarshalIndent(t, "", " ")
	if err != nil {
		return err
	}
	path := tablePath(folder, t.Device, t.Version)
	f, err := os.CreateTemp(folder, "table-") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
