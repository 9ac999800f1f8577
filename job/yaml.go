package job

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// YAML is the canonical text: every key that has a meaning for the job, in the order of Keys, one way to write each
// value; quiet ones only when they say something. Parse of it is the job again.
func (j Job) YAML() []byte {
	var b bytes.Buffer
	for _, k := range jobKeys() {
		if j.has(k.Only) && !(k.Quiet && isZero(k.at(&j))) {
			writeKey(&b, "", k.Name, k.at(&j))
		}
	}
	return b.Bytes()
}

// has says whether keys that are only for a kind of training have a meaning for the job.
func (j *Job) has(only string) bool {
	switch only {
	case QLoRA:
		return j.Adapter == LoRA && j.LoadIn4Bit
	case NewLoRA:
		return j.Adapter == LoRA && j.LoraModelDir == ""
	}
	return only == "" || only == j.Adapter
}

func writeKey(b *bytes.Buffer, indent, name string, field any) {
	if sets, ok := field.(*[]Dataset); ok {
		writeDatasets(b, name, *sets)
		return
	}
	fmt.Fprintf(b, "%s%s: %s\n", indent, name, inline(field))
}

func writeDatasets(b *bytes.Buffer, name string, sets []Dataset) {
	if len(sets) == 0 {
		return
	}
	fmt.Fprintf(b, "%s:\n", name)
	for i := range sets {
		indent := "  - "
		for _, k := range datasetKeys() {
			if field := k.at(&sets[i]); !isZero(field) {
				writeKey(b, indent, k.Name, field)
				indent = "    "
			}
		}
	}
}

// inline is a value on one line.
func inline(field any) string {
	switch p := field.(type) {
	case *string:
		return quoteIfNeeded(*p)
	case *int:
		return strconv.Itoa(*p)
	case *uint64:
		return strconv.FormatUint(*p, 10)
	case *float64:
		return strconv.FormatFloat(*p, 'g', -1, 64)
	case *bool:
		return strconv.FormatBool(*p)
	case *Targets:
		return p.inline()
	case *[]string:
		return listed(*p)
	case *map[string]int:
		return mapped(*p, strconv.Itoa)
	case *map[string]float64:
		return mapped(*p, func(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) })
	}
	panic(fmt.Sprintf("job: no way to write a %T", field)) // a row of the table with a new type
}

func (t Targets) inline() string {
	if t.Regex != "" {
		return strconv.Quote(t.Regex)
	}
	return listed(t.Names)
}

func listed(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = quoteIfNeeded(n)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

func mapped[V any](m map[string]V, text func(V) string) string {
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		pairs = append(pairs, quoteIfNeeded(key)+": "+text(m[key]))
	}
	return "{" + strings.Join(pairs, ", ") + "}"
}

var plain = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9_./-]*(:[A-Za-z0-9_./-]+)*$`)

// quoteIfNeeded leaves what no YAML reader can mistake for something else, and quotes the rest.
func quoteIfNeeded(s string) string {
	switch strings.ToLower(s) {
	case "", "null", "true", "false", "yes", "no", "on", "off", "y", "n":
		return strconv.Quote(s)
	}
	if plain.MatchString(s) {
		return s
	}
	return strconv.Quote(s)
}

func isZero(field any) bool { return reflect.ValueOf(field).Elem().IsZero() }

func setZero(field any) { reflect.ValueOf(field).Elem().SetZero() }

// Example is a job file to start from: the keys most people touch are set, the others are shown with their
// defaults behind a comment sign.
func Example() []byte {
	j, _ := Parse([]byte("base_model: base\ndatasets: train.jsonl"))
	four, _ := Parse([]byte("base_model: base\ndatasets: train.jsonl\nload_in_4bit: true"))
	j.Name, j.ValSetSize, j.Curriculum = "my-first-run", 0.05, "paced"
	shown := "name base_model adapter lora_r lora_alpha datasets val_set_size sequence_len curriculum micro_batch_size global_batch_size num_epochs learning_rate output_dir "
	var b bytes.Buffer
	b.WriteString("# A lorad job. Relative paths are taken from the folder of this file.\n")
	section := ""
	for _, k := range jobKeys() {
		if k.Section != section {
			section = k.Section
			fmt.Fprintf(&b, "\n# %s\n\n", section)
		}
		fmt.Fprintf(&b, "# %s\n", k.comment())
		if isZero(k.at(&j)) || !strings.Contains(shown, k.Name+" ") {
			b.WriteString("#")
		}
		from := &j
		if k.Only == QLoRA {
			from = &four
		}
		writeExample(&b, k.Name, k.at(from))
	}
	return b.Bytes()
}

func writeExample(b *bytes.Buffer, name string, field any) {
	if sets, ok := field.(*[]Dataset); ok && len(*sets) == 0 {
		fmt.Fprintf(b, "%s: [{path: held-out.jsonl}]\n", name)
		return
	}
	writeKey(b, "", name, field)
}

func (k Key) comment() string {
	if len(k.Aliases) == 0 {
		return k.Doc
	}
	return k.Doc + " (also: " + strings.Join(k.Aliases, ", ") + ")"
}
