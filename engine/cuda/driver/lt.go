//go:build cuda && linux

package driver

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"
	"gorgonia.org/cu"

	"lorad/engine/cuda/device"
)

// ltLibrary is a cuBLASLt. Its descriptors and layouts are objects of its own, by address.
type ltLibrary struct {
	create  func(handle *uintptr) int32
	destroy func(handle uintptr) int32
	version func() uintptr

	newDesc                     func(to *uintptr, compute, scale int32) int32
	newPreference               func(to *uintptr) int32
	setDesc, setPreference      func(of uintptr, attribute int32, value *uint64, bytes uintptr) int32
	newLayout                   func(to *uintptr, dataType int32, rows, cols uint64, ld int64) int32
	endDesc, endPref, endLayout func(of uintptr) int32
	heuristic                   func(handle, desc, a, b, c, d, preference uintptr, most int32, found *choice, count *int32) int32
	check                       func(handle, desc, a, b, c, d uintptr, algorithm *algorithm, found *choice) int32
	matmul                      func(handle, desc uintptr, alpha *float32, a, aIs, b, bIs uintptr, beta *float32, c, cIs, d, dIs uintptr, by *algorithm, workspace, bytes uintptr, stream unsafe.Pointer) int32
}

// choice is cublasLtMatmulHeuristicResult_t.
type choice struct {
	algorithm
	workspace uint64
	state     int32
	_         [5]int32
}

// Of cublasLt.h.
const (
	ltTransA, ltTransB                  = 3, 4
	ltMaxWorkspace, ltReductions        = 1, 3
	ltAlignA, ltAlignB, ltAlignC        = 5, 6, 7
	ltAlignD                            = 8
	ltReductionInComputeType     uint64 = 2
)

// loadLt loads the cuBLASLt beside a cuBLAS: the one that it stands on itself.
func loadLt(cublas string) (*ltLibrary, error) {
	folder, name := filepath.Split(cublas)
	name = folder + strings.Replace(name, "libcublas", "libcublasLt", 1)
	handle, err := purego.Dlopen(name, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, err
	}
	l := &ltLibrary{}
	return l, register(handle, name, []symbol{
		{&l.create, "cublasLtCreate"}, {&l.destroy, "cublasLtDestroy"}, {&l.version, "cublasLtGetVersion"},
		{&l.newDesc, "cublasLtMatmulDescCreate"}, {&l.setDesc, "cublasLtMatmulDescSetAttribute"}, {&l.endDesc, "cublasLtMatmulDescDestroy"},
		{&l.newLayout, "cublasLtMatrixLayoutCreate"}, {&l.endLayout, "cublasLtMatrixLayoutDestroy"},
		{&l.newPreference, "cublasLtMatmulPreferenceCreate"}, {&l.setPreference, "cublasLtMatmulPreferenceSetAttribute"}, {&l.endPref, "cublasLtMatmulPreferenceDestroy"},
		{&l.heuristic, "cublasLtMatmulAlgoGetHeuristic"}, {&l.check, "cublasLtMatmulAlgoCheck"}, {&l.matmul, "cublasLtMatmul"},
	})
}

// lt is cuBLASLt on one device. It works on cuBLAS's stream and in its workspace, as one product is done when the next begins.
type lt struct {
	lib       *ltLibrary
	handle    uintptr
	stream    unsafe.Pointer
	workspace cu.DevicePtr
	plans     map[Product]*plan
	tables    *tables
	table     *table // of this device, among them
}

// plan is what a product is computed by, made once.
type plan struct {
	desc, a, b, c uintptr
	choices       []choice // the heuristic's, in its order; none: cuBLASLt does not know such a product
	by            choice
	tuned         bool
}

func openLt(lib *ltLibrary, gpu string, on cu.Stream, workspace cu.DevicePtr, from *tables) (*lt, error) {
	l := &lt{lib: lib, stream: handle(on), workspace: workspace, plans: map[Product]*plan{}, tables: from, table: from.of(gpu, int(lib.version()))}
	return l, ltStatus("create", lib.create(&l.handle))
}

func (l *lt) close() error {
	var errs []error
	for _, p := range l.plans {
		errs = append(errs, l.end(p))
	}
	return errors.Join(append(errs, ltStatus("destroy", l.lib.destroy(l.handle)))...)
}

// gemm computes C, or says that cuBLASLt does not know such a product. x is the left operand and y the right one of row-major matrices, so cuBLASLt, which is
// column-major, has them the other way round.
func (l *lt) gemm(of Product, alpha *float32, x, y device.Matrix, beta *float32, c device.Matrix) (known bool, err error) {
	p, err := l.plan(of)
	if err != nil || len(p.choices) == 0 {
		return false, err
	}
	return true, l.run(p, &p.by, alpha, y.At, x.At, beta, c.At)
}

func (l *lt) run(p *plan, by *choice, alpha *float32, a, b device.Ptr, beta *float32, c device.Ptr) error {
	return ltStatus("Matmul", l.lib.matmul(l.handle, p.desc, alpha, uintptr(a), p.a, uintptr(b), p.b, beta, uintptr(c), p.c, uintptr(c), p.c,
		&by.algorithm, uintptr(l.workspace), workspaceBytes, l.stream))
}

// plan is a product's, made when it is asked for the first time. Nothing runs on the device for that, so it may be while a graph is recorded.
func (l *lt) plan(of Product) (*plan, error) {
	if p := l.plans[of]; p != nil {
		return p, nil
	}
	p := &plan{}
	err := l.describe(p, of)
	if err == nil {
		err = l.choose(p, of)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", of, err), l.end(p))
	}
	l.plans[of] = p
	return p, nil
}

func (l *lt) describe(p *plan, of Product) error {
	layout := func(to *uintptr, t device.Type, rows, cols, ld int, trans bool) int32 {
		if trans {
			rows, cols = cols, rows
		}
		return l.lib.newLayout(to, dataType(t), uint64(rows), uint64(cols), int64(ld))
	}
	transA, transB := uint64(op(of.TransB)), uint64(op(of.TransA))
	for _, code := range []func() int32{
		func() int32 { return l.lib.newDesc(&p.desc, computeF32, typeF32) },
		func() int32 { return l.lib.setDesc(p.desc, ltTransA, &transA, 4) },
		func() int32 { return l.lib.setDesc(p.desc, ltTransB, &transB, 4) },
		func() int32 { return layout(&p.a, of.In, of.N, of.K, of.LDB, of.TransB) },
		func() int32 { return layout(&p.b, of.In, of.K, of.M, of.LDA, of.TransA) },
		func() int32 { return layout(&p.c, of.Out, of.N, of.M, of.LDC, false) },
	} {
		if err := ltStatus("describe", code()); err != nil {
			return err
		}
	}
	return nil
}

// mostChoices is how many algorithms the heuristic is asked for. The first is taken; the others are there to be measured.
const mostChoices = 16

// choose takes the heuristic's first choice, or what the table has instead.
func (l *lt) choose(p *plan, of Product) error {
	preference, err := l.preference(of)
	if err != nil {
		return err
	}
	defer l.lib.endPref(preference)
	found, count := make([]choice, mostChoices), int32(0)
	code := l.lib.heuristic(l.handle, p.desc, p.a, p.b, p.c, p.c, preference, mostChoices, &found[0], &count)
	if code == codeNotSupported || code == 0 && count == 0 {
		return nil
	}
	if err := ltStatus("choose an algorithm", code); err != nil {
		return err
	}
	for _, c := range found[:count] {
		if c.state == 0 && c.workspace <= workspaceBytes {
			p.choices = append(p.choices, c)
		}
	}
	if len(p.choices) > 0 {
		p.by = p.choices[0]
		l.retune(p, of)
	}
	return nil
}

// retune takes what the table has instead, if it was measured against the very algorithm that would be taken without it.
func (l *lt) retune(p *plan, of Product) {
	better, ok := l.table.better(of, p.by.algorithm)
	if !ok {
		return
	}
	var c choice
	if l.lib.check(l.handle, p.desc, p.a, p.b, p.c, p.c, &better, &c) == 0 && c.state == 0 && c.workspace <= workspaceBytes {
		c.algorithm = better
		p.by, p.tuned = c, true
	}
}

func (l *lt) preference(of Product) (at uintptr, err error) {
	if err := ltStatus("prefer", l.lib.newPreference(&at)); err != nil {
		return 0, err
	}
	for _, s := range []struct {
		attribute int32
		value     uint64
		bytes     uintptr
	}{{ltMaxWorkspace, workspaceBytes, 8}, {ltReductions, ltReductionInComputeType, 4},
		{ltAlignA, uint64(of.AlignB), 4}, {ltAlignB, uint64(of.AlignA), 4}, {ltAlignC, uint64(of.AlignC), 4}, {ltAlignD, uint64(of.AlignC), 4}} {
		if err := ltStatus("prefer", l.lib.setPreference(at, s.attribute, &s.value, s.bytes)); err != nil {
			l.lib.endPref(at)
			return 0, err
		}
	}
	return at, nil
}

// end gives what a plan is made of back.
func (l *lt) end(p *plan) error {
	var errs []error
	for _, layout := range []uintptr{p.a, p.b, p.c} {
		if layout != 0 {
			errs = append(errs, ltStatus("end", l.lib.endLayout(layout)))
		}
	}
	if p.desc != 0 {
		errs = append(errs, ltStatus("end", l.lib.endDesc(p.desc)))
	}
	return errors.Join(errs...)
}

func ltStatus(call string, code int32) error { return status("Lt: "+call, code) }
