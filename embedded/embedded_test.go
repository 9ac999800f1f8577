package embedded

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"slices"
	"testing"

	"lorad/internal/bpe"
	"lorad/internal/world"
	"lorad/job"
	"lorad/model"
	"lorad/model/tokenizer"
)

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := fs.ReadFile(Base(), name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// What is embedded is what the generators write: nothing was touched by hand.
func TestTokenizerIsTheTrainedOne(t *testing.T) {
	want, err := bpe.Train(world.General(1, 20000), bpe.VocabSize).Files()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range want {
		if !bytes.Equal(read(t, name), data) {
			t.Errorf("%s differs from what internal/bpe writes: run scripts/pretrain-base.sh", name)
		}
	}
}

func TestLegalRecordsAreTheGenerated(t *testing.T) {
	for split, got := range map[world.Split][]byte{world.Train: LegalTrain(), world.Heldout: LegalHeldout()} {
		records, err := world.Legal(1, split)
		if err != nil {
			t.Fatal(err)
		}
		var want bytes.Buffer
		enc := json.NewEncoder(&want)
		enc.SetEscapeHTML(false)
		for _, r := range records {
			if err := enc.Encode(r); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got, want.Bytes()) {
			t.Errorf("%s: the embedded records differ from internal/world's: run scripts/pretrain-base.sh", split)
		}
	}
}

// The recorded ids are Hugging Face's (scripts/oracle/embedded_tokenizer.py).
func TestTokenizerAgreesWithHuggingFace(t *testing.T) {
	tok, err := tokenizer.Load(read(t, "tokenizer.json"), read(t, "tokenizer_config.json"))
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("testdata/encodings.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Text, Decoded string
		IDs           []int32
	}
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		if got := tok.Encode(c.Text, true); !slices.Equal(got, c.IDs) {
			t.Errorf("Encode(%q) = %v, want %v", c.Text, got, c.IDs)
		}
		if got := tok.Decode(c.IDs, true); got != c.Decoded {
			t.Errorf("Decode of %q = %q, want %q", c.Text, got, c.Decoded)
		}
	}
	if tok.VocabSize() != bpe.VocabSize || tok.BOS() != bpe.BOSID || tok.EOS() != bpe.EOSID {
		t.Errorf("vocabulary %d, bos %d, eos %d", tok.VocabSize(), tok.BOS(), tok.EOS())
	}
}

// A person's name is one token, so that copying it is one step; a firm's takes a few.
func TestNamesAreSingleTokens(t *testing.T) {
	tok, err := tokenizer.Load(read(t, "tokenizer.json"), nil)
	if err != nil {
		t.Fatal(err)
	}
	pools := world.Names()
	for _, name := range pools.Given {
		if n := len(tok.Encode(" "+name, false)); n > 1 {
			t.Errorf("%s is %d tokens", name, n)
		}
	}
	for _, name := range pools.Surnames {
		if n := len(tok.Encode(" "+name, false)); n > 3 {
			t.Errorf("%s is %d tokens", name, n)
		}
	}
	for _, record := range bytes.Split(bytes.TrimSpace(LegalTrain()), []byte("\n")) {
		var r world.Record
		if err := json.Unmarshal(record, &r); err != nil {
			t.Fatal(err)
		}
		if n := len(tok.Encode(r.Prompt+r.Completion, true)); n < 40 || n > 140 {
			t.Errorf("%s is %d tokens", r.ID, n)
		}
	}
}

func TestBaseOpens(t *testing.T) {
	folder, err := model.Open(Base())
	if err != nil {
		t.Fatal(err)
	}
	c := folder.Config()
	if c.VocabSize != bpe.VocabSize || c.HiddenSize != 128 || c.NumLayers != 5 || c.NumKVHeads != 2 || !c.TieEmbeddings || c.BOS != bpe.BOSID {
		t.Errorf("config %+v", c)
	}
}

func TestJobParses(t *testing.T) {
	j, err := job.Parse([]byte(JobYAML()))
	if err != nil {
		t.Fatal(err)
	}
	if j.Difficulty != job.DifficultyHeuristic || j.Curriculum != "paced" || j.Adapter != job.LoRA {
		t.Errorf("job %+v", j)
	}
}
