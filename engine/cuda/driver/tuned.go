package driver

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
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

// tables is what Tune has found, as Config.Tuned has it.
type tables struct {
	Tables []*table `json:"tables"`
	Sum    string   `json:"sum"` // of all the rest
}

// table is of one kind of device with one version of cuBLASLt.
type table struct {
	Device  string         `json:"device"`
	Version int            `json:"version"`
	Better  []tunedProduct `json:"better"`
}

// tunedProduct is a product with the algorithm that the heuristic names first, and one that is faster and has the same bits.
type tunedProduct struct {
	Product Product   `json:"product"`
	First   algorithm `json:"first"`
	By      algorithm `json:"by"`
}

// better is what to take instead of the heuristic's first choice.
func (t *table) better(of Product, first algorithm) (algorithm, bool) {
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
func (t *table) put(e tunedProduct) {
	t.Better = slices.DeleteFunc(t.Better, func(old tunedProduct) bool { return old.Product == e.Product })
	t.Better = append(t.Better, e)
	slices.SortFunc(t.Better, func(a, b tunedProduct) int { return cmp.Compare(fmt.Sprint(a.Product), fmt.Sprint(b.Product)) })
}

func (t tables) sum() string {
	t.Sum = ""
	data, err := json.Marshal(t)
	if err != nil {
		return ""
	}
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

// readTables reads what text wrote. Damaged ones are an error and none: products would be computed with what they say.
func readTables(text []byte) (*tables, error) {
	t := &tables{}
	if len(text) == 0 {
		return t, nil
	}
	err := json.Unmarshal(text, t)
	if err == nil && t.Sum != t.sum() {
		err = errors.New("they are not what was written")
	}
	if err != nil {
		return &tables{}, fmt.Errorf("damaged: %w: lorad bench --gpu all --tune makes them again", err)
	}
	return t, nil
}

// of is the table for a device, empty if there is none yet.
func (t *tables) of(gpu string, version int) *table {
	i := slices.IndexFunc(t.Tables, func(t *table) bool { return t != nil && t.Device == gpu && t.Version == version })
	if i >= 0 {
		return t.Tables[i]
	}
	t.Tables = append(t.Tables, &table{Device: gpu, Version: version})
	return t.Tables[len(t.Tables)-1]
}

func (t *tables) text() ([]byte, error) {
	t.Sum = t.sum()
	return json.MarshalIndent(t, "", " ")
}
