"""Every capture, in the stories in which it was captured; the words are methods of `Stage`."""

SLOW_DOWNLOAD = 'script {"download_chunks":40,"download_chunk_delay_s":0.05}'
QUICK_DOWNLOAD = 'script {"download_chunks":4,"download_chunk_delay_s":0}'

ON_A_NEW_SERVER = {
    "a server that did nothing yet": [
        *("001", "002", "003", "004", "005", "006", "007", "008"),
        *("009", "010", "011", "012", "013", "014", "015", "016"),
    ],
    "load, again, reload, chat, stream, unload": [
        'script {"models":{"gemma":{"chat_tokens":8}}}',
        *("031", "039", "040", "041", "opened gemma 1"),
        *("043", "opened gemma 2", "045", "opened gemma 3"),
        *("047", "048", "049", "050", "051", "052", "053"),
        *("125", "126", "127", "128", "129", "130"),
    ],
    "pulls": [
        'script {"offline":false}',
        *("510", "511", "512", "513", "514", "515", "516", "517"),
        *(SLOW_DOWNLOAD, "518", "download bytes_downloaded true", "519"),
        *("520", "download running false", "521"),
        *(QUICK_DOWNLOAD, "522", "523"),
        *("524", "525", "526", "527", "528", "529", "530"),
    ],
}
"""They look at counters and lists that only a new server has."""

WITH_KEYS = ["501", "502", "503", "504", "505", "506", "507", "508", "509"]

STORIES = {
    "unloads of nothing": ["018", "019"],
    "unloads without a name": [
        *("load ga", "until loaded ga", "017", "until loaded"),
        *("load ga", "until loaded ga", "020", "until loaded"),
    ],
    "loads that cannot be meant": ["021", "022", "023", "024", "025", "026", "027"],
    "chats that cannot be meant": ["028", "029"],
    "registrations": ["030", "031", "032", "033", "034", "035", "036", "037", "038"],
    "a chat to a loaded model waits until the running load and the queued one ended": [
        *("201", "202", "hold gb", "hold gc"),
        *("begin 203", "until loading gb", "begin 204", "until waiting 1", "begin 207"),
        *("205", "206", "pending 203 204 207"),
        *("free gb", "end 203", "until loading gc", "pending 204 207"),
        *("free gc", "end 204", "end 207", "order 203 204", "order 203 207"),
        *("208", "209"),
    ],
    "two loads of the same model are one": [
        *("210", "hold gb", "begin 211", "until loading gb", "begin 212", "until waiting 1"),
        *("pending 211 212", "free gb", "end 211", "end 212", "opened gb 1", "213"),
    ],
    "a file that is no GGUF evicts nothing": ["214", "215", "216", "217", "218"],
    "a truncated file evicts even what is pinned": ["219", "220", "221", "222", "223", "224"],
    "a good magic before nonsense does too": ["225", "226", "227", "228", "229", "230", "231"],
    "evict-all waits for a busy model, holds health up, and leaves it in the end": [
        *("301", "302", "303", 'script {"evict_grace_s":3600}'),
        *("talk ga", "begin 304", "until streaming ga"),
        *("begin 305", "until evicting ga", "begin 306", "pending 304 305 306"),
        *('script {"evict_grace_s":0}', "end 305", "end 306", "307", "pending 304"),
        *("until loaded ga", "hush ga", "end 304", "308"),
    ],
    "a chat to a truncated file evicts everything": ["309", "310", "311", "312", "313"],
    "options that no backend starts with evict everything": [
        *("314", "315", "until loaded", "316", "317", "until loaded", "318", "319", "320"),
    ],
    "files that are not there": [
        *("032", "321", "322", "323", "324", "325", "326", "327", "remove vanish", "328", "329"),
        *("write ge", "330", "331", "332"),
        *('script {"watch_s":3600}', "remove ge", "333", "334", 'script {"watch_s":0}'),
        *("link gd", "335", "folder gd", "336", "remove gd", "337"),
    ],
    "an unload of a busy model waits, and holds up health and other models, but not live": [
        *("338", "339", "talk ga", "begin 340", "until streaming ga"),
        *("begin 341", "until evicting ga", "begin 342", "begin 344"),
        *("343", "pending 340 341 342 344"),
        *("hush ga", "end 340", "end 341", "end 342", "end 344"),
        *("order 340 341", "order 340 342", "order 340 344", "345", "346"),
    ],
    "a load goes on after its caller left": [
        *("hold gb", "leave 347", "until loading gb", "348"),
        *("free gb", "until loaded gb", "349", "350"),
    ],
    "an unload of everything does not stop a load": [
        *("hold gb", "leave 351", "until loading gb", "352"),
        *("free gb", "until loaded gb"),
    ],
    "room for one": [
        *("401", "402", "403", "404", "405", "406", "407", "408", "409", "410"),
        *("411", "412", "413", "414", "415"),
    ],
    "a killed backend is started again, by the next request or by itself": [
        *("416", "kill ga", "417", "418", "talk ga"),
        *("begin 419", "hear 419 4", "hold ga", "kill ga", "end 419", "until loading ga"),
        *("420", "421", "free ga", "until loaded ga", "422"),
    ],
    "an idle model is downsized, then unloaded, where somebody asked for it": [
        *("423", "424", "until downsized ga", "until loaded gb", "425"),
    ],
    "offline": ["426", "427", "428", "429", "430", "431", "432", "433"],
}
