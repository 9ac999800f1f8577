package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"lorad/data"
	"lorad/job"
	"lorad/node/blob"
	"lorad/node/recipe"
	"lorad/proto"
)

// EmbeddedBase is the base_model that names the model inside the binary.
const EmbeddedBase = "embedded"

// Prepare turns what a user submits into the immutable specification of a run: inputs hashed and taken into the
// store by reference, examples tokenised once to know their hash and the number of steps. The node that is asked
// becomes the run's home: it writes output_dir.
func (n *Node) Prepare(ctx context.Context, req *proto.SubmitRequest) (*proto.Spec, error) {
	j, err := job.Parse([]byte(req.JobYaml))
	if err != nil {
		return nil, err
	}
	j = j.Resolve(req.Dir, func(p string) bool { return p == EmbeddedBase })
	if req.Confined {
		if err := confine(j, req.Dir); err != nil {
			return nil, err
		}
	}
	p := &preparation{store: n.blobs, embedded: n.cfg.Embedded}
	portable, err := p.collect(ctx, j)
	if err != nil {
		return nil, err
	}
	rec, err := recipe.Load(portable, n.view(p.files))
	if err == nil {
		err = rec.Check()
	}
	if err != nil {
		return nil, p.inUsersWords(err)
	}
	spec := &proto.Spec{
		Name:           j.Name,
		JobYaml:        string(portable.YAML()),
		Files:          p.files,
		ManifestSha256: rec.Set.Hash[:],
		Steps:          uint64(rec.Plan.Steps()),
		MicroBatches:   uint32(rec.MaxMicros()),
		HomeNode:       n.cfg.ID,
		OutputDir:      j.OutputDir,
		BaseModel:      j.BaseModel,
		Warnings:       rec.Warnings(),
	}
	for i, w := range spec.Warnings {
		spec.Warnings[i] = p.words().Replace(w)
	}
	spec.Run = runID(spec)
	n.mu.Lock()
	n.prepared = prepared{spec.Run, rec}
	n.mu.Unlock()
	return spec, nil
}

// prepared is the recipe of the run that was submitted here last: its worker, which starts in a moment, need not read
// and tokenise everything again.
type prepared struct {
	run    string
	recipe *recipe.Recipe
}

// load is recipe.Load, or what Prepare has just loaded.
func (n *Node) load(spec *proto.Spec, j job.Job) (*recipe.Recipe, error) {
	n.mu.Lock()
	last := n.prepared
	if last.run == spec.Run {
		n.prepared = prepared{}
	}
	n.mu.Unlock()
	if last.run == spec.Run {
		return last.recipe, nil
	}
	return recipe.Load(j, n.view(spec.Files))
}

// runID names a run after its job and the hash of all that determines it, the output directory included: the same
// job submitted again is the same run, and is resumed rather than repeated.
func runID(s *proto.Spec) string {
	h := sha256.New()
	fmt.Fprintf(h, "lorad-run/1\n%s\n%x\n%s\n", s.JobYaml, s.ManifestSha256, s.OutputDir)
	for _, f := range s.Files {
		fmt.Fprintf(h, "%s %x\n", f.Name, f.Sha256)
	}
	return slug(s.Name) + "-" + hex.EncodeToString(h.Sum(nil)[:6])
}

var notSlug = regexp.MustCompile(`[^a-z0-9]+`)

func slug(name string) string {
	s := strings.Trim(notSlug.ReplaceAllString(strings.ToLower(name), "-"), "-")
	if s == "" {
		return "run"
	}
	return s[:min(len(s), 40)]
}

// preparation gathers the input files of one job.
type preparation struct {
	store    *blob.Store
	embedded fs.FS
	files    []*proto.File
	paths    []string // of the data files: the portable name and the user's, in turn
}

// words turns portable names of data files into the user's.
func (p *preparation) words() *strings.Replacer { return strings.NewReplacer(p.paths...) }

// inUsersWords is the error with the paths that the user knows.
func (p *preparation) inUsersWords(err error) error {
	if said := p.words().Replace(err.Error()); said != err.Error() {
		return &renamedError{err, said}
	}
	return err
}

type renamedError struct {
	error
	said string
}

func (e *renamedError) Error() string { return e.said }
func (e *renamedError) Unwrap() error { return e.error }

// collect takes all inputs into the store and returns the job with their portable names in place of paths.
func (p *preparation) collect(ctx context.Context, j job.Job) (job.Job, error) {
	if err := p.base(j.BaseModel); err != nil {
		return j, err
	}
	j.BaseModel = recipe.BaseDir
	if j.LoraModelDir != "" {
		if err := p.folder(j.LoraModelDir, recipe.AdapterDir, adapterFile); err != nil {
			return j, err
		}
		j.LoraModelDir = recipe.AdapterDir
	}
	var err error
	if j.Datasets, err = p.datasets(ctx, j.Datasets, "data"); err != nil {
		return j, err
	}
	if j.TestDatasets, err = p.datasets(ctx, j.TestDatasets, "test"); err != nil {
		return j, err
	}
	j.OutputDir = "output"
	return j, nil
}

func (p *preparation) base(dir string) error {
	if dir != EmbeddedBase {
		if err := p.folder(dir, recipe.BaseDir, modelFile); err != nil {
			return err
		}
		return p.isModel(dir)
	}
	return fs.WalkDir(p.embedded, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !modelFile(name) {
			return err
		}
		info, err := p.store.AddShipped(p.embedded, name)
		p.add(path.Join(recipe.BaseDir, name), info)
		return err
	})
}

// isModel refuses a folder of something else by its own name.
func (p *preparation) isModel(dir string) error {
	if !slices.ContainsFunc(p.files, func(f *proto.File) bool { return f.Name == path.Join(recipe.BaseDir, "config.json") }) {
		return fmt.Errorf("read model folder: there is no config.json in %s; a Hugging Face model folder has config.json, tokenizer.json and *.safetensors", dir)
	}
	return nil
}

// folder takes the wanted files of a directory (not of those below it: Hugging Face folders are flat).
func (p *preparation) folder(dir, under string, want func(name string) bool) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read model folder: there is no %s; base_model is the path of a Hugging Face folder, or %q", dir, EmbeddedBase)
	}
	if err != nil {
		return fmt.Errorf("read model folder: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() || !want(e.Name()) {
			continue
		}
		info, err := p.store.AddFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		p.add(path.Join(under, e.Name()), info)
	}
	return nil
}

func (p *preparation) datasets(ctx context.Context, in []job.Dataset, under string) ([]job.Dataset, error) {
	out := append([]job.Dataset(nil), in...)
	for i := range out {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		info, err := p.store.AddFile(out[i].Path)
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("%s/%d%s", under, i, data.Extension(out[i].Path))
		p.paths = append(p.paths, name, out[i].Path)
		out[i].Path = name
		p.add(out[i].Path, info)
	}
	return out, nil
}

func (p *preparation) add(name string, info blob.Info) {
	p.files = append(p.files, &proto.File{Name: name, Sha256: info.Hash[:], Size: uint64(info.Size), ChunkSha256: info.Chunks})
}

// modelFile tells what of a model folder a run needs: not optimiser states, not pickled weights.
func modelFile(name string) bool {
	switch path.Ext(name) {
	case ".safetensors", ".json", ".jinja":
		return true
	}
	return false
}

func adapterFile(name string) bool {
	return name == "adapter_config.json" || name == "adapter_model.safetensors"
}

// view shows the files of a run by their portable names.
func (n *Node) view(files []*proto.File) fs.FS {
	names := make(map[string]blob.Hash, len(files))
	for _, f := range files {
		if h, err := blob.HashOf(f.Sha256); err == nil {
			names[f.Name] = h
		}
	}
	return n.blobs.View(names)
}
