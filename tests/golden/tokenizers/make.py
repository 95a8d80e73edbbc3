"""Writes the tokenizers beside this script and what Hugging Face's tokenizers (0.23.3) makes of the cases: make.py [DIRECTORY].

They are trained on this project's own sources, so that nothing else's licence is involved; run again, their vocabularies
follow the sources."""
import glob, json, os, sys
from tokenizers import Tokenizer, models, trainers, normalizers, pre_tokenizers, decoders, processors, AddedToken, Regex
HERE=os.path.dirname(os.path.abspath(__file__))
OUT=sys.argv[1] if len(sys.argv) > 1 else HERE
ROOT=os.path.join(HERE, '..', '..', '..')
texts=[]
for f in sorted(glob.glob(ROOT+'/docs/*.md')+glob.glob(ROOT+'/*/*.[ch]')+[ROOT+'/NOTICE']): texts+=open(f,encoding='utf-8').read().split('\n')
corpus=[t for t in texts if t.strip()]
CASES=["", " ", "  ", "\n", "a", "Hello world", "Hello  world ", " leading", "trailing ", "don't I'll WE'VE she'd 'S", "1234567890", "3.14159e-10",
 "\t\tx\n\n  y", "a\x00b", "\x7f\x80\u00a0\u00ad", "caf\u00e9 cafe\u0301 \u212b \ufb01 \uff21", "\u4f60\u597d\uff0c\u4e16\u754c\uff01", "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c", "\ud55c\uad6d\uc5b4 \u1112\u1161\u11ab",
 "\U0001f44b\U0001f3fd \U0001f468\u200d\U0001f469\u200d\U0001f467", "\u0645\u0631\u062d\u0628\u0627", "\u0928\u092e\u0938\u094d\u0924\u0947", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "\u2581", "\u2581\u2581a \u2581b", "a\u2581b", "<s>", "<s> a </s>", "x<s>y", "<unk>", "<mask>", "  <mask>  x", "a <mask> b", "foo<extra>bar", "foo <extra> bar", "<EXTRA>", "<0x0A>", "def f(x):\n    return x**2  # sq\n", "a"*300, "ab "*120, " "*77, "\u0301\u0300\u0323a", "a\u0315\u0300\u05ae\u0062", "\u1100\u1161\u11a8", "\u0130stanbul \u00c9COLE \u03a3\u03a3", "\u180e\u2028\u2029\u0085\u3000x", "A1b22C333 4444", "!?.,;:$+<=>^`|~", "I\u2019m l\u2019\u00e9t\u00e9", "\U0010ffff\ufffd\ue000", "\u00bd\u2167\u0967", "  a   b    c", "end\n", "\r\n\r\nx\r", "snake_case camelCase", "tok ens", "\u200b\u200dzw"]
corpus+=[c for c in CASES if "\0" not in c]*3
def cases(tok, extra):
    import random
    rnd=random.Random(7)
    out=[]
    pieces=list(CASES)+extra
    for _ in range(12): pieces.append("".join(rnd.choice(CASES[1:-14]) for _ in range(6)))
    pieces += texts[40:48]
    for t in pieces:
        e=tok.encode(t, add_special_tokens=False).ids
        out.append({"text":t,"ids":e,"special_ids":tok.encode(t).ids,"decoded":tok.decode(e,skip_special_tokens=False)})
    return out
def write(name, tok):
    d=os.path.join(OUT,name); os.makedirs(d,exist_ok=True)
    j=json.loads(tok.to_str()); 
    with open(d+'/tokenizer.json','w') as f: json.dump(j,f,ensure_ascii=False,indent=0,separators=(',',':')); f.write('\n')
    tok=Tokenizer.from_file(d+'/tokenizer.json')
    with open(d+'/cases.jsonl','w') as f:
        for c in cases(tok,[]): f.write(json.dumps(c,ensure_ascii=True)+'\n')
    print(name, os.path.getsize(d+'/tokenizer.json'), len(j['model']['vocab']))
BYTES=[f"<0x{i:02X}>" for i in range(256)]
def sp_train(norm, pre, size, **kw):
    t=Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    # train with words starting by the mark
    t.pre_tokenizer=pre_tokenizers.Metaspace()
    tr=trainers.BpeTrainer(vocab_size=size, special_tokens=["<unk>","<s>","</s>"]+BYTES, show_progress=False, limit_alphabet=200)
    t.train_from_iterator(corpus, tr)
    j=json.loads(t.to_str())
    j['model']['ignore_merges']=False
    j['added_tokens']=[a for a in j['added_tokens'] if a['id']<3]
    t=Tokenizer.from_str(json.dumps(j))
    if norm is not None: t.normalizer=norm
    if pre is not None: t.pre_tokenizer=pre
    else:
        j=json.loads(t.to_str()); j['pre_tokenizer']=None; t=Tokenizer.from_str(json.dumps(j))
    return t
SPDEC=lambda: decoders.Sequence([decoders.Replace("\u2581"," "),decoders.ByteFallback(),decoders.Fuse(),decoders.Strip(" ",1,0)])
def bos(t): t.post_processor=processors.TemplateProcessing(single="<s> $A",pair="<s> $A <s>:1 $B:1",special_tokens=[("<s>",t.token_to_id("<s>"))]); return t
# llama-2: Prepend + Replace, no pre-tokenizer
t=bos(sp_train(normalizers.Sequence([normalizers.Prepend("\u2581"),normalizers.Replace(" ","\u2581")]),None,900)); t.decoder=SPDEC()
t.add_tokens([AddedToken("<extra>",normalized=True)])
write('llama2',t)
# mistral v0.3 style: Metaspace, prepend first, no split
t=bos(sp_train(None,pre_tokenizers.Metaspace(prepend_scheme="first",split=False),800)); t.decoder=SPDEC()
t.add_tokens([AddedToken("<extra>",normalized=False,single_word=True), AddedToken("<mask>",lstrip=True,rstrip=True,normalized=False)])
write('metaspace_first',t)
# Metaspace always, split; few bytes so that unk occurs; NFKC + lowercase
t=Tokenizer(models.BPE(unk_token="<unk>",fuse_unk=False,byte_fallback=False)); t.normalizer=normalizers.Sequence([normalizers.NFKC(),normalizers.Lowercase(),normalizers.Replace(Regex("[0-9]+"),"#")])
t.pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Metaspace(),pre_tokenizers.Punctuation("merged_with_previous"),pre_tokenizers.Digits(individual_digits=False)])
t.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=500,special_tokens=["<unk>","<s>","</s>"],show_progress=False,limit_alphabet=60))
t.decoder=decoders.Metaspace(); t.post_processor=processors.TemplateProcessing(single="<s> $A </s>",special_tokens=[("<s>",1),("</s>",2)])
t.add_tokens([AddedToken("<extra>",normalized=True,single_word=True), AddedToken("<mask>",lstrip=True,normalized=True)])
write('unk_nfkc',t)
# llama-3 style: split regex, byte level, ignore_merges, bos through a Sequence
L3=r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
t=Tokenizer(models.BPE())
t.pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(L3),"isolated"),pre_tokenizers.ByteLevel(add_prefix_space=False,use_regex=False)])
t.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=900,special_tokens=["<s>"],initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),show_progress=False))
j=json.loads(t.to_str()); j['model']['ignore_merges']=True
# a token that no merge makes: only ignore_merges finds it
n=max(j['model']['vocab'].values())+1
for w in ("\u0120camelCase","camelCase","\u00e4\u00bd\u0142\u00e5\u00a5\u00bd"): 
    if w not in j['model']['vocab']: j['model']['vocab'][w]=n; n+=1
t=Tokenizer.from_str(json.dumps(j)); t.decoder=decoders.ByteLevel()
t.post_processor=processors.Sequence([processors.ByteLevel(trim_offsets=False),processors.TemplateProcessing(single="<s> $A",special_tokens=[("<s>",0)])])
t.add_tokens([AddedToken("<mask>",lstrip=True,rstrip=True)])
write('llama3',t)
# GPT-2 with a space in front, behaviours of Split, NFD
t=Tokenizer(models.BPE(unk_token="<unk>",fuse_unk=True)); t.normalizer=normalizers.NFD()
t.pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"\d"),"merged_with_next"),pre_tokenizers.Split("_","removed"),pre_tokenizers.Split(Regex(r"\w+|\W"),"contiguous",invert=True),pre_tokenizers.ByteLevel(add_prefix_space=True)])
t.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=420,special_tokens=["<unk>"],show_progress=False))
t.decoder=decoders.ByteLevel(); write('gpt2_nfd',t)
# Whitespace words, contiguous punctuation
t=Tokenizer(models.BPE(unk_token="<unk>")); t.normalizer=normalizers.Sequence([normalizers.NFKD(),normalizers.NFC()]); t.pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(),pre_tokenizers.Whitespace(),pre_tokenizers.Punctuation("contiguous"),pre_tokenizers.Digits(individual_digits=True)])
t.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=400,special_tokens=["<unk>"],show_progress=False,limit_alphabet=150))
write('whitespace',t)
