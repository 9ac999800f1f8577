package job

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const (
	keysBegin = "<!-- keys:begin (written by go test ./job -run TestDocs -update) -->\n"
	keysEnd   = "<!-- keys:end -->\n"
)

// TestDocs holds docs/job.md to the table of keys; -update writes it.
func TestDocs(t *testing.T) {
	path := filepath.Join("..", "docs", "job.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := bytes.Cut(text, []byte(keysBegin))
	_, after, closed := bytes.Cut(rest, []byte(keysEnd))
	if !ok || !closed {
		t.Fatalf("%s: the marks %q and %q are missing", path, keysBegin, keysEnd)
	}
	want := slices.Concat(before, []byte(keysBegin), documented(t), []byte(keysEnd), after)
	if bytes.Equal(text, want) {
		return
	}
	if !*update {
		t.Fatalf("%s does not say what the table of keys says; run go test ./job -run TestDocs -update and look at the diff", path)
	}
	if err := os.WriteFile(path, want, 0o644); err != nil {
		t.Fatal(err)
	}
}

// documented is the generated part: the keys by section, those of a data set, translated aliases, other tools' keys.
func documented(t *testing.T) []byte {
	var b bytes.Buffer
	lora, full := parse(t, head), parse(t, head+"adapter: full\n")
	section := ""
	for _, k := range jobKeys() {
		if k.Section != section {
			section = k.Section
			fmt.Fprintf(&b, "\n### %s\n\n| Key | Also | Type | Default | Meaning |\n|---|---|---|---|---|\n", section)
		}
		tableRow(&b, "`"+k.Name+"`", code(k.Aliases), typed(k.Key, k.at(&lora)), shownDefault(k, &lora, &full), meaning(k.Key))
	}
	b.WriteString("\n### Keys of a data set\n\n| Key | Also | Default | Meaning |\n|---|---|---|---|\n")
	for _, k := range datasetKeys() {
		tableRow(&b, "`"+k.Name+"`", code(k.Aliases), datasetDefault(k.Name), meaning(k.Key))
	}
	translated(&b)
	others(&b)
	return b.Bytes()
}

func tableRow(b *bytes.Buffer, cells ...string) {
	for i := range cells {
		cells[i] = strings.ReplaceAll(cells[i], "|", `\|`)
	}
	fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | "))
}

func code(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = "`" + w + "`"
	}
	return strings.Join(out, ", ")
}

func typed(k Key, field any) string {
	if given := slices.DeleteFunc(slices.Clone(k.Values), func(v string) bool { return v == "" }); len(given) > 0 {
		return code(given)
	}
	return strings.TrimPrefix(typeName(field), "a ")
}

func shownDefault(k key[Job], lora, full *Job) string {
	switch k.Name {
	case "base_model", "datasets":
		return "required"
	case "test_datasets":
		return "none"
	case "global_batch_size", "gradient_accumulation_steps":
		return "`" + inline(k.at(lora)) + "` (derived)"
	}
	from := lora
	switch k.Only {
	case Full:
		from = full
	case QLoRA:
		from = new(Job)
		*from = defaults()
	}
	if field := k.at(from); reflect.ValueOf(field).Elem().Kind() == reflect.String && isZero(field) {
		return "none"
	}
	text := "`" + inline(k.at(from)) + "`"
	if other := "`" + inline(k.at(full)) + "`"; k.Only == "" && k.Name != "adapter" && other != text {
		text += "; " + other + " with `adapter: full`"
	}
	return text
}

func datasetDefault(name string) string {
	switch name {
	case "path":
		return "required"
	case "type":
		return "`auto`"
	case "weight":
		return "`1`"
	case "task", "prompt_template", "completion_template", "field_difficulty":
		return "none"
	}
	return "the usual name"
}

func meaning(k Key) string {
	if k.Only == QLoRA {
		return k.Doc + " (`load_in_4bit: true` only)"
	}
	if k.Only == NewLoRA {
		return k.Doc + " (not beside `lora_model_dir`)"
	}
	if k.Only != "" {
		return k.Doc + " (`adapter: " + k.Only + "` only)"
	}
	return k.Doc
}

// translated are the names whose values are spelt otherwise than the key's.
func translated(b *bytes.Buffer) {
	b.WriteString("\n### Names whose values are translated\n\n| Written | Means | Any other value |\n|---|---|---|\n")
	for _, a := range aliases() {
		for _, from := range slices.Sorted(maps.Keys(a.value)) {
			means := "as if it were not there"
			if to := a.value[from]; to != "" {
				means = "`" + a.key + ": " + to + "`"
			}
			tableRow(b, "`"+a.name+": "+from+"`", means, a.refuse)
		}
	}
	b.WriteString("\n| Key | Other spellings of a value |\n|---|---|\n")
	for _, k := range jobKeys() {
		if len(k.words) > 0 {
			tableRow(b, "`"+k.Name+"`", spellings(k.words))
		}
	}
	for _, k := range datasetKeys() {
		if len(k.words) > 0 {
			tableRow(b, "`datasets[]."+k.Name+"`", spellings(k.words))
		}
	}
}

func spellings(words map[string]string) string {
	var out []string
	for _, from := range slices.Sorted(maps.Keys(words)) {
		out = append(out, "`"+from+"` = `"+words[from]+"`")
	}
	return strings.Join(out, ", ")
}

// others are keys of other tools' files.
func others(b *bytes.Buffer) {
	b.WriteString("\n### Keys of other tools\n\n| Key | Accepted, without effect | Otherwise |\n|---|---|---|\n")
	line := func(prefix string, n none) {
		if n.ok == nil {
			tableRow(b, "`"+prefix+n.name+"`", "any value", n.why)
			return
		}
		var ok []string
		for _, v := range n.ok {
			if v == "" {
				v = `""`
			}
			ok = append(ok, v)
		}
		tableRow(b, "`"+prefix+n.name+"`", code(ok), "error: "+n.why)
	}
	for _, n := range ignored() {
		line("", n)
	}
	for _, n := range datasetIgnored() {
		line("datasets[].", n)
	}
}
