package data

import (
	"fmt"
	"testing"
)

// BenchmarkBuild: 2,000 prompt/completion records of about 60 words, a byte-level BPE of 420 tokens.
func BenchmarkBuild(b *testing.B) {
	_, tok := recorded(&testing.T{})
	text := make([]string, 2000)
	for i := range text {
		text[i] = fmt.Sprintf(`{"prompt": "Case %d: Anna Berg, a baker from Norden, filed a complaint against Grimwick Carriers. The court finds for the plaintiff. The defendant shall pay 1,200 to Anna Berg and must bear costs of 90. The hearing had lasted two days.\nQuestion: Who is the plaintiff?\nAnswer:", "completion": " The plaintiff is Anna Berg."}`, i)
	}
	for b.Loop() {
		if _, err := Build([]Source{lines("x", text...)}, Options{ValSetSize: 0.1}, tok, ""); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkChat renders and tokenises 200 conversations of two answers.
func BenchmarkChat(b *testing.B) {
	o, tok := recorded(&testing.T{})
	text := make([]string, 200)
	for i := range text {
		text[i] = `{"messages": [{"role": "user", "content": "Who pays?"}, {"role": "assistant", "content": "The defendant."}, {"role": "user", "content": "How much?"}, {"role": "assistant", "content": "1,200."}]}`
	}
	for b.Loop() {
		if _, err := Build([]Source{lines("x", text...)}, Options{}, tok, o.Chats[0].Template); err != nil {
			b.Fatal(err)
		}
	}
}
